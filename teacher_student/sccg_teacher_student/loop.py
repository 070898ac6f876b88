"""The training loop, generic over a task: optimiser, schedule, averaged weights, checkpoints, exact resume."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sccg_runtime.errors import CheckpointError, InputError
from sccg_runtime.files import replacing
from sccg_teacher_student.checkpoint import load_tensors_only, one_line
from sccg_teacher_student.optimizers import MuonAdamW


class Task(Protocol):
    """Owns a network and its losses; the loop knows nothing else about it."""

    network: nn.Module
    scaled: bool
    """Whether gradients are float16's and need their loss scaled (Micikevicius et al. 2018)."""

    def losses(self, generator: torch.Generator, share: float) -> dict[str, Tensor]:
        """Draw a batch and give the named losses; ``"total"`` is minimised, the others are logged.

        ``share`` of the run is done, 0 to 1.
        """

    def trainable(self) -> list[nn.Parameter]:
        """What the loop's optimiser shall train beside the network (empty for most tasks)."""

    def state(self) -> dict[str, Any]:
        """What must be saved beside the network, tensors and plain values only."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    steps
        Optimiser steps; None: until ``seconds`` are over.
    seconds
        Wall time of this and all earlier parts of the run; None: until ``steps`` are done.
    learning_rate
        Peak; linear warm-up over 5 % of the way, then cosine to a hundredth.
    muon_ratio
        Muon's learning rate over AdamW's; 0: no Muon.
    weight_decay, clip_norm
        Of the optimisers, and of the gradient.
    average_decay
        Of the exponential moving average of the weights, per step.
    """

    steps: int | None
    seconds: float | None
    learning_rate: float = 2e-3
    muon_ratio: float = 10.0
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    average_decay: float = 0.999

    def rate(self, share: float) -> float:
        """Learning rate when ``share`` (0 to 1) of the way is done."""
        warm = 0.05
        if share < warm:
            return self.learning_rate * max(share / warm, 0.01)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - warm) / (1 - warm))))
        return self.learning_rate * (0.01 + 0.99 * cosine)


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run after a step.

    Attributes
    ----------
    step
        Optimiser steps done.
    share
        Part of the way done, 0 to 1.
    seconds
        Wall time of the training so far.
    slices
        Slices seen so far.
    losses
        Means since the last report.
    """

    step: int
    share: float
    seconds: float
    slices: int
    losses: dict[str, float]


@dataclass(slots=True)
class Trainer:
    """A run that can stop at any step and go on as if it had not.

    Attributes
    ----------
    task, schedule, batch
        What is learned, for how long, and slices per step.
    folder
        Run folder: ``last.pt`` and ``log.csv`` are written there.
    identity
        Text kept in ``last.pt`` (spec and record as JSON), so that the file alone is a usable checkpoint.
    seed
        Of the batches and of everything random in the losses.
    """

    task: Task
    schedule: Schedule
    batch: int
    folder: Path
    identity: Mapping[str, str]
    seed: int
    step: int = 0
    seconds: float = 0.0
    average: AveragedModel = field(init=False)
    optimizer: MuonAdamW = field(init=False)
    generator: torch.Generator = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        if (self.schedule.steps is None) == (self.schedule.seconds is None):
            raise InputError("a run needs either a number of steps or a time")
        update = _moving_average(self.schedule.average_decay)
        self.average = AveragedModel(self.task.network, multi_avg_fn=update, use_buffers=True)
        decay, ratio = self.schedule.weight_decay, self.schedule.muon_ratio
        self.optimizer = MuonAdamW(self.task.network, self.task.trainable(), weight_decay=decay, muon_ratio=ratio)
        self.generator = torch.Generator().manual_seed(self.seed)
        device = next(self.task.network.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.task.scaled)

    @property
    def share(self) -> float:
        """Part of the way done, 0 to 1."""
        if self.schedule.steps is not None:
            return min(1.0, self.step / self.schedule.steps)
        return min(1.0, self.seconds / (self.schedule.seconds or 1.0))

    def run(self, report: Callable[[Progress], None], every: int = 20, save_seconds: float = 60.0) -> None:
        """Train to the end of the schedule. KeyboardInterrupt saves ``last.pt`` and goes on to the caller.

        A Ctrl-C waits for the step to end, so that what is saved is whole; a second one does not wait or save.

        Raises
        ------
        InputError
            A loss or its gradient is not finite; ``last.pt`` of the last save is kept.
        """
        self.task.network.train()
        sums: dict[str, float] = {}
        count, saved = 0, time.monotonic()
        origin = saved - self.seconds
        whole = True
        try:
            with _interrupt_between_steps() as interrupted:
                while self.share < 1:
                    whole = False
                    losses = self._one_step()
                    whole = True
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0.0) + value
                    count += 1
                    self.seconds = time.monotonic() - origin
                    if self.step % every == 0 or self.share >= 1:
                        means = {name: value / count for name, value in sums.items()}
                        progress = Progress(self.step, self.share, self.seconds, self.step * self.batch, means)
                        self._log(progress)
                        report(progress)
                        sums, count = {}, 0
                    if interrupted():
                        raise KeyboardInterrupt
                    if time.monotonic() - saved > save_seconds:
                        self.save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            if whole:
                self.save()
            raise
        self.save()

    def _one_step(self) -> dict[str, float]:
        self.optimizer.set_rate(self.schedule.rate(self.share))
        losses = self.task.losses(self.generator, self.share)
        total = losses["total"]
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
            raise InputError(f"step {self.step}: the loss is not finite ({parts}); lower the learning rate")
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(total))
        scale = self.scaler.get_scale()
        norm = self.optimizer.step(self.scaler, self.schedule.clip_norm)
        if not torch.isfinite(norm) and scale <= 1:
            raise InputError(f"step {self.step}: the gradient is not finite; lower the learning rate")
        self.average.update_parameters(self.task.network)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def averaged(self) -> nn.Module:
        """The network with averaged weights, in evaluation mode."""
        network: nn.Module = self.average.module
        return network.eval()

    def save(self) -> None:
        """Write ``last.pt``, whole or not at all; it holds tensors and plain values only."""
        content = {
            "schema": "sccg-run/1",
            **self.identity,
            "schedule": json.dumps(asdict(self.schedule)),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.task.network.state_dict(),
            "average": self.average.module.state_dict(),
            "averaged_steps": self.average.n_averaged,
            "beside": self.task.state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": self.generator.get_state(),
        }
        with replacing(self.folder / "last.pt") as temporary:
            torch.save(content, temporary)

    def restore(self) -> None:
        """Go on from ``last.pt`` of the run folder, on the schedule that the run began with.

        Raises
        ------
        CheckpointError
            It is not there, damaged, or of another run: other network, teacher or data.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            raise CheckpointError(f"{self.folder} has no last.pt to resume from")
        content: Any = load_tensors_only(path)
        if not isinstance(content, dict) or content.get("schema") != "sccg-run/1":
            raise CheckpointError(f"{path} is not a training checkpoint of this project")
        other = [key for key, value in self.identity.items() if content.get(key) != value]
        if other:
            raise CheckpointError(f"{path} belongs to another run: its {' and '.join(other)} is not what this run has")
        try:
            self.task.network.load_state_dict(content["network"])
            self.average.module.load_state_dict(content["average"])
            self.average.n_averaged.copy_(content["averaged_steps"])
            self.task.restore(content["beside"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.generator.set_state(content["random"])
            self.schedule = Schedule(**json.loads(content["schedule"]))
            self.step, self.seconds = int(content["step"]), float(content["seconds"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} does not fit this run: {one_line(error)}") from None

    def _log(self, progress: Progress) -> None:
        path = self.folder / "log.csv"
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "seconds", "slices", "learning_rate", *progress.losses])
            rate = self.schedule.rate(progress.share)
            values = [f"{value:.6g}" for value in progress.losses.values()]
            writer.writerow([progress.step, f"{progress.seconds:.2f}", progress.slices, f"{rate:.4g}", *values])


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """While open, the first Ctrl-C only makes the given function answer True; a second one interrupts at once."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: False  # signals are not ours here, or Ctrl-C is ignored
        return
    asked = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay rises as (1 + n) / (10 + n), so that short runs forget their start."""

    def update(averaged: list[Tensor], current: list[Tensor], done: Tensor | int) -> None:
        count = float(done)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        for ours, theirs in zip(averaged, current, strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, weight)
            else:
                ours.copy_(theirs)

    return update


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where it is; asking for ``cuda`` without one is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is none of auto, cpu, cuda")
    return torch.device(name)


def use_cores() -> None:
    """Let PyTorch use the CPUs that this process may run on."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    torch.set_num_threads(available)
