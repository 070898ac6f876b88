"""Losses of distillation: pure functions of (N, 1, H, W) tensors in [-1, 1], each giving a scalar."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 4
"""Pixels that both sides of a slice must be multiples of: of the head's grid, and of two Haar levels."""


def charbonnier(output: Tensor, target: Tensor, weight: Tensor | None = None, epsilon: float = 0.03) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon, times ``weight``: L1 with a round bottom (Charbonnier et al. 1994).

    The bottom is four grey levels of 256 wide: below, large differences count more than small ones, as in a PSNR.
    """
    distance = torch.sqrt((output - target) ** 2 + epsilon**2) - epsilon
    return distance.mean() if weight is None else (distance * weight).mean()


def head_weight(image: Tensor, target: Tensor, inside: float = 3.0, above: float = -0.88, cell: int = CELL) -> Tensor:
    """``inside`` in and near the head of either slice, 1 in the air around it; (N, 1, H, W).

    ``above``: foreground threshold (15 of 255). ``cell``: pixels of the grid that the head is grown on, by one cell
    to each side; H and W must be multiples of it.
    """
    brightest = F.max_pool2d(torch.maximum(image, target), cell)
    head = F.max_pool2d((brightest > above).to(image.dtype), 3, stride=1, padding=1)
    return F.interpolate(1 + (inside - 1) * head, scale_factor=cell, mode="nearest")


def haar_bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """(low (N, C, H/2, W/2), high (N, 3C, H/2, W/2)) of one level of the orthonormal Haar transform; even H, W."""
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return (a + b + c + d) / 2, torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 2


def wavelet_l1(output: Tensor, target: Tensor, weight: Tensor | None = None, levels: int = 2) -> Tensor:
    """L1 between the high Haar bands, times ``weight``, mean over ``levels`` levels (after Zhang et al., CVPR 2022)."""
    low = output - target  # the transform is linear
    total = output.new_zeros(())
    for _ in range(levels):
        low, high = haar_bands(low)
        if weight is None:
            total = total + high.abs().mean()
        else:
            weight = F.avg_pool2d(weight, 2)
            total = total + (high.abs() * weight).mean()
    return total / levels


def sharpened(target: Tensor, gain: float, sigma: float = 1.5) -> Tensor:
    """(N, 1, H, W) with its detail times ``gain``, kept in [-1, 1]: an unsharp mask.

    Detail is what a gaussian of ``sigma`` pixels takes away: half of it above a quarter of the Nyquist frequency.

    A student cannot foresee all detail; at a correlation r, the best guess has r^2 of the target's energy, which is a
    blur. Of all outputs of more energy, that guess times a factor lies nearest to the target; and it is the best guess
    of a target whose detail is multiplied.
    """
    window = _gaussian(sigma, target.dtype, target.device)
    reach = len(window) // 2
    smooth = F.pad(target, (reach, reach, reach, reach), mode="replicate")
    smooth = F.conv2d(F.conv2d(smooth, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return (target + (gain - 1) * (target - smooth)).clamp(-1, 1)


def ssim(output: Tensor, target: Tensor, sigma: float = 1.5, data_range: float = 2.0) -> Tensor:
    """Mean structural similarity (Wang et al. 2004): gaussian window of 11 pixels, no border padding."""
    window = _gaussian(sigma, output.dtype, output.device)
    stack = torch.cat([output, target, output * output, target * target, output * target], dim=1)
    channels = stack.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = F.conv2d(F.conv2d(stack, rows, groups=channels), columns, groups=channels)
    mean_o, mean_t, square_o, square_t, product = torch.split(blurred, output.shape[1], dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance, variances = product - mean_o * mean_t, square_o - mean_o**2 + square_t - mean_t**2
    top = (2 * mean_o * mean_t + c1) * (2 * covariance + c2)
    return (top / ((mean_o**2 + mean_t**2 + c1) * (variances + c2))).mean()


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Least-squares GAN term: mean (scores - 1)^2 for real, mean scores^2 for fake (Mao et al. 2017)."""
    return ((scores - 1) ** 2).mean() if real else (scores**2).mean()


@functools.cache
def _gaussian(sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    radius = int(3.5 * sigma + 0.5)
    with torch.inference_mode(False):  # the first caller may be in inference mode, the next one may train
        offsets = torch.arange(-radius, radius + 1, dtype=dtype, device=device)
        window = torch.exp(-(offsets**2) / (2 * sigma**2))
        return window / window.sum()
