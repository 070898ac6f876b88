"""Supervised training on pairs (L1 to the real image): the small teacher that the demo needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError
from sccg_teacher_student.checkpoint import save_checkpoint
from sccg_teacher_student.data.source import DataSource
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.loop import WHOLE, Part, Progress, Schedule, Trainer, use_cores
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import GeneratorSpec
from sccg_teacher_student.record import TrainingRecord


class SupervisedTask:
    """L1 between the network's output and the real image of the same level."""

    scaled = False

    def __init__(self, network: nn.Module, images: Tensor, targets: Tensor, batch: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._images, self._targets, self._batch = images, targets, batch

    def losses(self, generator: torch.Generator, part: Part = WHOLE) -> dict[str, Tensor]:
        """``total``: mean absolute difference on [-1, 1] of one batch."""
        chosen = torch.randint(len(self._images), (self._batch,), generator=generator)[part.of(self._batch)]
        images = self._images[chosen].contiguous(memory_format=torch.channels_last)
        return {"total": F.l1_loss(self.network(images), self._targets[chosen])}

    def trainable(self) -> list[nn.Parameter]:
        """Nothing beside the network."""
        return []

    def state(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""


def train_supervised(
    source: DataSource,
    direction: Direction,
    spec: GeneratorSpec,
    path: Path,
    *,
    seconds: float,
    seed: int = 0,
    batch: int = 4,
    report: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Train for ``seconds`` on the training cases and write the checkpoint ``path``, with its record.

    Raises
    ------
    InputError
        A pair is not complete.
    """
    use_cores()
    torch.manual_seed(seed)
    train, val = training_cases(source, seed=seed)
    images, targets = [], []
    for pair in source.pairs(train):
        if pair.mr is None or pair.ct is None:
            raise InputError(f"{pair.case}/{pair.slice} is not a pair")
        images.append(pair.mr if direction == "mr2ct" else pair.ct)
        targets.append(pair.ct if direction == "mr2ct" else pair.mr)
    record = TrainingRecord.of(source, direction, images, (train, val))
    stacked = [torch.from_numpy(np.stack(arrays)) for arrays in (images, targets)]
    task = SupervisedTask(build_generator(spec), stacked[0], stacked[1], batch)
    schedule = Schedule(steps=None, seconds=seconds, learning_rate=1e-3)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(task, schedule, batch, path.parent, {}, seed)
    trainer.run(report)
    save_checkpoint(path, trainer.averaged(), spec, record)
