"""The CycleGAN generator, with that repository's parameter names, so its files load as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sccg_teacher_student.networks.norm import InstanceNorm2d
from sccg_teacher_student.networks.spec import GeneratorSpec


class ResnetBlock(nn.Module):
    """x + conv-norm-ReLU-conv-norm of x; any H, W."""

    def __init__(self, channels: int, spec: GeneratorSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [_pad(spec), nn.Conv2d(channels, channels, 3, bias=_bias(spec)), _norm(spec, channels)]
            layers += [] if last else [nn.ReLU(True)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = x + self.conv_block(x)
        return y


class ResnetGenerator(nn.Module):
    """Generator of Zhu et al. 2017 as in the pytorch-CycleGAN-and-pix2pix repository (``resnet_9blocks``)."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        width = spec.width
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(spec.in_channels, width, 7, bias=_bias(spec)),
            _norm(spec, width),
            nn.ReLU(True),
        ]
        self.ends = [len(layers)]  # of the encoder's stages, in layers
        for _ in range(spec.downsamples):
            layers += [
                nn.Conv2d(width, width * 2, 3, stride=2, padding=1, bias=_bias(spec)),
                _norm(spec, width * 2),
                nn.ReLU(True),
            ]
            width *= 2
            self.ends.append(len(layers))
        for _ in range(spec.blocks):
            layers.append(ResnetBlock(width, spec))
            self.ends.append(len(layers))
        for _ in range(spec.downsamples):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=_bias(spec)),
                _norm(spec, width // 2),
                nn.ReLU(True),
            ]
            width //= 2
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, spec.out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        self.averages_channels = spec.out_channels > 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] -> (N, 1, H, W) in [-1, 1]."""
        y: Tensor = self.model(x)
        return torch.mean(y, dim=1, keepdim=True) if self.averages_channels else y

    def stage(self, number: int) -> nn.Sequential:
        """Part of the encoder, sharing its weights: the stem (0), each down-sampling, then each residual block."""
        start = self.ends[number - 1] if number else 0
        return nn.Sequential(*list(self.model)[start : self.ends[number]])


def _pad(spec: GeneratorSpec) -> nn.Module:
    return nn.ReflectionPad2d(1) if spec.padding == "reflect" else nn.ZeroPad2d(1)


def _norm(spec: GeneratorSpec, channels: int) -> nn.Module:
    if spec.norm == "batch":
        return nn.BatchNorm2d(channels)
    if spec.norm == "none":
        return nn.Identity()
    return InstanceNorm2d(channels, affine=spec.norm == "instance-affine")


def _bias(spec: GeneratorSpec) -> bool:
    return spec.norm != "batch"
