"""What the training loop asks of whatever it trains, and the part of a batch that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a step's batch that one process computes at one go.

    Attributes
    ----------
    step
        Optimiser steps done before.
    index, count
        This is part ``index`` (from 0) of ``count`` parts of equal size.
    share
        Of the run that is done, 0 to 1.
    """

    step: int = 0
    index: int = 0
    count: int = 1
    share: float = 0.0

    def of(self, batch: int) -> slice:
        """Which of ``batch`` slices belong to this part."""
        size = batch // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE = Part()


class Task(Protocol):
    """Owns a network and its losses; the loop knows nothing else about it."""

    network: nn.Module
    scaled: bool
    """Whether gradients are float16's and need their loss scaled (Micikevicius et al. 2018)."""

    def losses(self, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        """Draw a batch, take ``part`` of it and give its named losses; ``"total"`` is minimised, the others are logged.

        ``generator`` is in the same state for all parts of a step.
        """

    def trainable(self) -> list[nn.Parameter]:
        """What the loop's optimiser shall train beside the network (empty for most tasks)."""

    def state(self) -> dict[str, Any]:
        """What must be saved beside the network, tensors and plain values only."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
