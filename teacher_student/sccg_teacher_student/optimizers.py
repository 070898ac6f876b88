"""Muon for the weights of convolutions, AdamW for everything else, stepped as one optimiser.

Muon (Jordan et al. 2024) makes every update of a weight matrix nearly orthogonal, so that its small directions learn
as fast as its large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sccg_teacher_student.precision import choose_amp

SMALLEST_SIDE = 16  # of a matrix that is worth making orthogonal


class Float32Muon(torch.optim.Muon):
    """The library's Muon, except that matrices are made orthogonal in float32.

    The library does it in bfloat16, for which a CPU without bfloat16 arithmetic takes ten times as long.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every matrix that has a gradient."""
        for group in self.param_groups:
            momentum, coefficients = group["momentum"], group["ns_coefficients"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                average = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix.grad))
                average.lerp_(matrix.grad, 1 - momentum)
                update = orthogonal(matrix.grad.lerp(average, momentum), coefficients, group["ns_steps"], group["eps"])
                rows, columns = matrix.shape
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float) -> Tensor:
    """``matrix`` (A, B) with singular values near 1, by ``steps`` of a Newton-Schulz iteration (Jordan et al. 2024)."""
    wide = matrix.T if len(matrix) > len(matrix.T) else matrix
    wide = wide / wide.norm().clamp(min=epsilon)
    a, b, c = coefficients
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if len(matrix) > len(matrix.T) else wide


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
            in_bfloat16 = choose_amp("auto", self._matrices[0].device) is not None
            muon = torch.optim.Muon if in_bfloat16 else Float32Muon
            self._parts.append(muon(self._matrices, lr=0.0, weight_decay=weight_decay))

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
