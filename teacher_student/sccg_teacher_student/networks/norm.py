"""Instance norm that learns at the speed of its convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm whose training keeps the layout of its input on a CPU, and whose gradient is right there.

    PyTorch 2.13's turns channels-last slices into planes and back, and its gradient is wrong where what comes back for
    a single slice is in channels-last layout.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, C, H, W) -> the same shape."""
        if not (self.training and input.requires_grad and input.device.type == "cpu"):
            return super().forward(input)
        if self.affine:
            return _normalise(input, self.weight, self.bias, self.eps)
        ones = input.new_ones(input.shape[1], dtype=torch.promote_types(input.dtype, torch.float32))
        return _normalise(input, ones, torch.zeros_like(ones), self.eps)


class _Normalise(torch.autograd.Function):
    """Normalises every channel of every slice, with statistics and parameters in float32 beside bfloat16 slices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        count, channels, height, width = x.shape
        if torch.compiler.is_compiling():  # torch.compile would round group norm's statistics to bfloat16
            wide = x.to(weight.dtype)
            variance, mean = torch.var_mean(wide, (2, 3), correction=0)
            inverse = torch.rsqrt(variance + epsilon)
            scale = inverse * weight
            output = (wide * _spread(scale) + _spread(bias - mean * scale)).to(x.dtype)
        else:
            output, mean, inverse = torch.native_group_norm(
                x, weight, bias, count, channels, height * width, channels, epsilon
            )
        ctx.save_for_backward(x, weight, mean, inverse)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With y = weight * (x - mean) * inverse + bias, the input's gradient is a line in ``grad`` and in ``x``."""
        x, weight, mean, inverse = ctx.saved_tensors
        wide, grad = x.to(mean.dtype), grads[0].to(mean.dtype)
        pixels = x.shape[2] * x.shape[3]
        total = grad.sum((2, 3))
        along = inverse * ((grad * wide).sum((2, 3)) - mean * total)
        scale = weight * inverse
        slope = -scale * inverse * along / pixels
        start = -scale * total / pixels - slope * mean
        given = torch.addcmul(_spread(start), grad, _spread(scale)).addcmul_(wide, _spread(slope))
        return given.to(x.dtype), along.sum(0), total.sum(0), None


def _spread(values: Tensor) -> Tensor:
    """(N, C) or (C,) over the pixels of (N, C, H, W)."""
    return values[..., None, None]


_normalise: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _Normalise.apply
