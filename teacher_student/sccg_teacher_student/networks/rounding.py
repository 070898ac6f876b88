"""Activations rounded while a student learns, as its INT8 engine will round them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sccg_teacher_student import parallel

LEVELS = 255


def relu(x: Tensor, *, rounded: bool) -> Tensor:
    """ReLU of (N, C, H, W); rounded, to ``LEVELS`` steps between 0 and the largest values of the slices, on average.

    On average over all processes that train together: they must round alike, and call this together.

    The gradient passes the rounding straight through (Bengio et al. 2013; Jacob et al. 2018).
    """
    positive = F.relu(x)
    if not rounded:
        return positive
    with torch.no_grad():
        step = parallel.mean(positive.amax((1, 2, 3)).mean()).clamp(min=1e-6) / LEVELS
        error = (positive / step).round().clamp(max=LEVELS) * step - positive
    return positive + error
