"""From a spec to a network, and from a trained network to the form that engines get."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sccg_teacher_student.networks.resnet import ResnetGenerator
from sccg_teacher_student.networks.s2d import S2DGenerator, SpaceToDepthStem
from sccg_teacher_student.networks.spec import GeneratorSpec

# New families register here.
FAMILIES: dict[str, type[nn.Module]] = {"resnet": ResnetGenerator, "s2d": S2DGenerator}


def build_generator(spec: GeneratorSpec) -> nn.Module:
    """A generator with fresh weights; (N, in_channels, H, W) float in [-1, 1] -> (N, 1, H, W)."""
    return FAMILIES[spec.family](spec)


def fold_for_export(generator: nn.Module) -> nn.Module:
    """A copy in evaluation mode with batch norms folded and each space-to-depth stem as one strided convolution.

    The function computed stays the same; both are differences of rounding only (tests: below 1e-5).
    """
    folded = copy.deepcopy(generator).eval()
    _fold_batch_norms(folded)
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SpaceToDepthStem):
                setattr(module, name, strided_stem(child))
    return folded.requires_grad_(False)


def strided_stem(stem: SpaceToDepthStem) -> nn.Conv2d:
    """The one convolution of stride factor and a kernel factor times as large that equals the two steps of the stem."""
    factor, conv = stem.factor, stem.conv
    channels, (rows, columns) = conv.in_channels // factor**2, conv.weight.shape[2:]
    padding = (rows // 2) * factor
    strided = nn.Conv2d(channels, conv.out_channels, rows * factor, stride=factor, padding=padding)
    weight = conv.weight.reshape(conv.out_channels * channels, factor**2, rows, columns)
    with torch.no_grad():
        strided.weight.copy_(F.pixel_shuffle(weight, factor).reshape(strided.weight.shape))
        if conv.bias is None or strided.bias is None:
            strided.bias = None
        else:
            strided.bias.copy_(conv.bias)
    return strided.eval()


def _fold_batch_norms(module: nn.Module) -> None:
    previous: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            conv = _last_conv(previous)
            transposed = isinstance(conv, nn.ConvTranspose2d)
            if child.running_mean is None or child.running_var is None:
                raise TypeError("batch norm without running statistics cannot be folded")
            conv.weight, bias = fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                child.running_mean,
                child.running_var,
                child.eps,
                child.weight,
                child.bias,
                transpose=transposed,
            )
            conv.register_parameter("bias", bias)
            setattr(module, name, nn.Identity())
        else:
            _fold_batch_norms(child)
        previous = child


def _last_conv(module: nn.Module | None) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution right before a batch norm: the module itself, or the one inside a space-to-depth stem."""
    if isinstance(module, SpaceToDepthStem):
        return module.conv
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module
    raise TypeError(f"batch norm after {type(module).__name__} cannot be folded")
