"""The hybrid objective's other terms (PAPER section "Loss"): pure functions of tensors, each giving a scalar.

Least squares for one score map is in :mod:`losses`, structural consistency in :mod:`structure`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sccg_teacher_student.losses import least_squares


def discriminator_loss(real: Tensor, fake: Tensor, shares: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """1/2 E[(1 - D(y))^2] + 1/2 E[D(G(x))^2]; score maps (N, 1, h, w), N may differ; ``shares`` weigh the two."""
    return (shares[0] * least_squares(real, real=True) + shares[1] * least_squares(fake, real=False)) / 2


@torch.no_grad()
def pixel_weights(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """P_pix: the discriminator's scores of the outputs as weights in [0, 1], without gradient.

    ReLU, bilinear to ``size`` (rows, columns), then for each slice from its smallest to its largest value. A constant
    map, which says nothing about places (all rejected, say), becomes 1: plain L1.

    Parameters
    ----------
    scores
        (N, 1, h, w), unbounded.

    Returns
    -------
    Tensor
        (N, 1, rows, columns) in [0, 1].
    """
    maps = F.interpolate(F.relu(scores), size, mode="bilinear", align_corners=False)
    lowest, highest = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    span = highest - lowest
    constant = span <= 1e-6 * highest.clamp(min=1)
    return torch.where(constant, torch.ones_like(maps), (maps - lowest) / span.clamp(min=1e-12))


def pixel_translation(output: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of P_pix * |G(x) - y| over all pixels of (N, 1, H, W); without weights plain L1."""
    distance = (output - target).abs()
    return distance.mean() if weights is None else (weights * distance).mean()


def cycle_consistency(back: Tensor, image: Tensor) -> Tensor:
    """Mean of |F(G(x)) - x| over all pixels of (N, 1, H, W): what both generators make of a slice in turn, and it."""
    return (back - image).abs().mean()
