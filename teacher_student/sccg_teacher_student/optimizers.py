"""Muon for the weights of convolutions, AdamW for everything else, stepped as one optimiser.

Muon (Jordan et al. 2024) makes every update of a weight matrix nearly orthogonal, so that its small directions learn
as fast as its large ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_SIDE = 16  # of a matrix that is worth making orthogonal


class MuonAdamW:
    """Steps a network's convolution weights by Muon, its other parameters by AdamW.

    Parameters
    ----------
    network
        What is learned; device and memory format must be final: weights are stepped through flat views of them.
    beside
        Further parameters to learn, by AdamW.
    first_moment
        Decay of the gradient's mean in AdamW.
    weight_decay
        Decoupled, of both.
    muon_ratio
        Muon's learning rate over AdamW's; 0: AdamW steps everything.
    """

    def __init__(
        self,
        network: nn.Module,
        beside: Sequence[nn.Parameter] = (),
        *,
        first_moment: float = 0.9,
        weight_decay: float,
        muon_ratio: float,
    ) -> None:
        self._muon_ratio = muon_ratio
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._weights = [parameter for parameter in parameters if muon_ratio and _is_wide(parameter)]
        self._matrices = [nn.Parameter(_flat(weight.detach())) for weight in self._weights]
        wide = {id(weight) for weight in self._weights}
        others = [parameter for parameter in parameters if id(parameter) not in wide]
        self._parts: list[torch.optim.Optimizer] = []
        if others or beside:
            betas = (first_moment, 0.999)
            self._parts.append(torch.optim.AdamW([*others, *beside], lr=0.0, betas=betas, weight_decay=weight_decay))
        if self._matrices:
            self._parts.append(torch.optim.Muon(self._matrices, lr=0.0, weight_decay=weight_decay))

    def set_rate(self, rate: float) -> None:
        """AdamW's learning rate in the next steps; Muon's follows by its ratio."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * (self._muon_ratio if isinstance(part, torch.optim.Muon) else 1.0)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)
        for weight in self._weights:
            weight.grad = None

    def step(self, scaler: torch.amp.GradScaler, clip_norm: float | None) -> Tensor:
        """Unscale and clip the gradients (None: leave them), step, and give their norm before the clip, shape ().

        A step whose gradients are not all finite is left out, by both optimisers, and the norm is not finite; with
        float16's loss scaling, the scale is then lowered.
        """
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _flat(weight.grad)
        for part in self._parts:
            scaler.unscale_(part)
        learned = [parameter for part in self._parts for group in part.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(learned, math.inf if clip_norm is None else clip_norm)
        if torch.isfinite(norm):
            for part in self._parts:
                scaler.step(part)
        scaler.update()
        return norm

    def state_dict(self) -> list[dict[str, Any]]:
        """State of the parts, in order."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take back what :meth:`state_dict` gave."""
        for part, values in zip(self._parts, state, strict=True):
            part.load_state_dict(values)


def _is_wide(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 4 and min(len(parameter), parameter[0].numel()) >= SMALLEST_SIDE


def _flat(weight: Tensor) -> Tensor:
    """(A, B, h, w) as (A, h w B), sharing memory if the weight is laid out channels-last, as (A, B h w) otherwise."""
    if weight.is_contiguous():
        return weight.view(len(weight), -1)
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)
