"""Students made for INT8 engines: all work happens at 1/factor resolution or below, in convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_teacher_student.networks.norm import InstanceNorm2d
from sccg_teacher_student.networks.rounding import relu
from sccg_teacher_student.networks.spec import BRANCH_STRIDE, GeneratorSpec, Norm

CLIP_MARGIN = 0.03


class InwardClip(torch.autograd.Function):
    """Clip to [-limit, limit] whose gradient reaches pixels outside only where it moves them back.

    With no gradient outside, a pixel that left the range would never return; with all of it, a loss that wants more
    contrast pushes saturated pixels outwards without end (outputs of 10^4 were seen before the clip).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        """Any shape."""
        ctx.save_for_backward(x)
        ctx.limit = limit
        return torch.clamp(x, -limit, limit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """A step goes against the gradient: above the limit it must be positive, below its negative, negative."""
        (x,) = ctx.saved_tensors
        (grad,) = grads
        outward = ((x > ctx.limit) & (grad < 0)) | ((x < -ctx.limit) & (grad > 0))
        return grad.masked_fill(outward, 0), None


_inward_clip: Callable[[Tensor, float], Tensor] = InwardClip.apply


class FiLM(nn.Module):
    """Scales and shifts every channel by numbers computed from all channels' means over the slice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Conv2d(channels, channels, 1)
        self.shift = nn.Conv2d(channels, channels, 1)
        for layer in (self.scale, self.shift):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        code = F.relu(self.squeeze(torch.mean(x, dim=(2, 3), keepdim=True)))
        y: Tensor = x * (1 + self.scale(code)) + self.shift(code)
        return y


class S2DBlock(nn.Module):
    """x + conv(ReLU(dilated conv(x))); without norm, sums start in a narrow range, as the second convolution is small.

    With a ``group_width``, the first convolution sees so many channels at a time (1: depthwise) and the second is 1x1.
    With ``norm_once`` only the first is followed by a norm.
    """

    def __init__(
        self,
        channels: int,
        dilation: int,
        norm: Norm,
        kernel: int = 3,
        *,
        group_width: int = 0,
        norm_once: bool = False,
    ) -> None:
        super().__init__()
        groups, last = (channels // group_width, 1) if group_width else (1, 3)
        padding, bias, second = dilation * (kernel // 2), norm == "none", "none" if norm_once else norm
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias)
        self.norm1 = _norm(channels, norm)
        self.conv2 = nn.Conv2d(channels, channels, last, padding=last // 2, bias=second == "none")
        self.norm2 = _norm(channels, second)
        with torch.no_grad():
            self.conv2.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))), rounded=self.training)


class LowerPath(nn.Module):
    """x + what a body makes of it at 1/ratio of its resolution, with ``inner`` channels."""

    def __init__(self, channels: int, inner: int, ratio: int, norm: Norm) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, inner, ratio, stride=ratio, bias=norm == "none")
        self.down_norm = _norm(inner, norm)
        self.up = nn.Conv2d(inner, channels * ratio**2, 1)
        self.shuffle = nn.PixelShuffle(ratio)
        _equal_subpixels(self.up, ratio)
        with torch.no_grad():
            self.up.weight.mul_(0.2)

    def forward(self, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); ``body`` takes and gives (N, inner, H / ratio, W / ratio)."""
        low = body(F.relu(self.down_norm(self.down(x))))
        return relu(x + self.shuffle(self.up(low)), rounded=self.training)


class SpaceToDepthStem(nn.Module):
    """Pixel-unshuffle by ``factor``, then a convolution."""

    def __init__(self, channels: int, out: int, factor: int, bias: bool, kernel: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels * factor**2, out, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, out, H / factor, W / factor)."""
        y: Tensor = self.conv(F.pixel_unshuffle(x, self.factor))
        return y


class S2DGenerator(nn.Module):
    """Space-to-depth stem, residual blocks, convolutions, hyperbolic tangent and pixel shuffle.

    With a clip in the place of the tangent: in training it lies ``clip_margin`` further out, and the loss asks for
    saturated pixels there; rounding to eight bits then leaves air as black as it was. The sums of blocks are rounded in
    training.
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.tanh, self.clip_margin = spec.tanh, 0.0 if spec.tanh else CLIP_MARGIN
        norm, width, inner, once = spec.norm, spec.width, spec.inner_width or spec.width, spec.norm_once
        self.standardise, self.norm_once = spec.standardise, once
        outer, bias = spec.outer_kernel, norm == "none"
        half, full = spec.half_width or 2 * spec.full_width, spec.full_width
        self.half_stem: nn.Module | None = None
        self.stem: nn.Module
        if half:
            steps: list[nn.Module] = []
            if full:
                whole = nn.Conv2d(spec.in_channels, full, 7, padding=3, bias=bias)
                steps = [whole, _norm(full, norm), nn.ReLU(), nn.Conv2d(full, half, 3, stride=2, padding=1, bias=bias)]
            else:
                steps = [SpaceToDepthStem(spec.in_channels, half, spec.factor // 2, bias, kernel=3)]
            self.half_stem = nn.Sequential(*steps, _norm(half, norm), nn.ReLU())
            self.stem = nn.Conv2d(half, width, 3, stride=2, padding=1, bias=bias)
        else:
            self.stem = SpaceToDepthStem(spec.in_channels, width, spec.factor, bias, outer)
        self.stem_norm = _norm(width, norm)
        self.branch: LowerPath | None = None
        if spec.branch:
            low = 2 * width
            self.branch = LowerPath(width, low, BRANCH_STRIDE // spec.factor, norm)
            self.branch_body = nn.Sequential(*(S2DBlock(low, 1, norm, norm_once=once) for _ in range(2)), FiLM(low))
        group = 1 if spec.depthwise else spec.group_width
        self.unet = LowerPath(width, inner, 2, norm) if spec.inner_width else None
        self.blocks = nn.ModuleList(
            S2DBlock(inner, dilation, norm, spec.kernel, group_width=group, norm_once=once)
            for dilation in spec.dilations
        )
        self.films = nn.ModuleDict({str(block): FiLM(inner) for block in spec.film_after})
        self.tail_in: nn.Module | None = None
        if spec.refine:
            groups = width // (spec.group_width or width)
            self.tail_in = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=not once)
        self.tail_norm = _norm(width, norm if once else "none")
        self.tail = nn.Conv2d(width, spec.out_channels * spec.factor**2, outer, padding=outer // 2)
        self.shuffle = nn.PixelShuffle(spec.factor)
        _equal_subpixels(self.tail, spec.factor)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] -> (N, 1, H, W) in [-1, 1] (a clip in training: with the margin)."""
        if self.standardise:
            x = x - torch.mean(x, dim=(1, 2, 3), keepdim=True)
            x = x * torch.rsqrt(torch.mean(x * x, dim=(1, 2, 3), keepdim=True) + 1e-4)
        if self.half_stem is not None:
            x = self.half_stem(x)
        x = relu(self.stem_norm(self.stem(x)), rounded=self.training)
        if self.branch is not None:
            x = self.branch(x, self.branch_body)
        x = self._trunk(x) if self.unet is None else self.unet(x, self._trunk)
        if self.tail_in is not None:
            x = F.relu(self.tail_norm(self.tail_in(x)))
        x = self.tail(x)
        if self.tanh:
            x = torch.tanh(x)  # engines compute it in one go with the convolution before it
        elif self.training:
            x = _inward_clip(x, 1 + self.clip_margin)
        else:
            x = torch.clamp(x, -1, 1)
        y: Tensor = self.shuffle(x)
        return y

    def _trunk(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if str(number) in self.films:
                x = self.films[str(number)](x)
        return x


def _norm(channels: int, norm: Norm) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if norm == "batch" else InstanceNorm2d(channels, affine=True)


def _equal_subpixels(conv: nn.Conv2d, factor: int) -> None:
    """Give all pixels that one channel is shuffled into the same filter: no checkerboard to unlearn (Aitken 2017)."""
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:: factor**2].repeat_interleave(factor**2, dim=0))
