"""The training loop, generic over a task: optimiser, schedule, averaged weights, checkpoints, exact resume."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from sccg_runtime.errors import CheckpointError, InputError, one_line
from sccg_teacher_student import parallel
from sccg_teacher_student.checkpoint import load_tensors_only, save_tensors
from sccg_teacher_student.csv_log import append_row, drop_rows
from sccg_teacher_student.networks.spec import GeneratorSpec
from sccg_teacher_student.optimizers import MuonAdamW
from sccg_teacher_student.task import Part, Task


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
    constant
        Keep the learning rate at its peak all the way.
    muon_ratio
        Muon's learning rate over AdamW's; 0: no Muon.
    first_moment, weight_decay
        Of AdamW: decay of the gradient's mean, and of the weights (Adam where this is 0).
    clip_norm
        Largest norm of the network's gradient; None: any.
    average_decay
        Of the exponential moving average of the weights, per step; 0: the weights themselves.
    """

    steps: int | None
    seconds: float | None
    learning_rate: float = 2e-3
    constant: bool = False
    muon_ratio: float = 10.0
    first_moment: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    average_decay: float = 0.999

    def rate(self, share: float) -> float:
        """Learning rate when ``share`` (0 to 1) of the way is done."""
        if self.constant:
            return self.learning_rate
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
    accumulate
        Parts that every process computes its share of a batch in, one after the other: less memory, same gradient
        (a batch norm's statistics are those of a part).
    """

    task: Task
    schedule: Schedule
    batch: int
    folder: Path
    identity: Mapping[str, str]
    seed: int
    accumulate: int = 1
    step: int = 0
    seconds: float = 0.0
    average: AveragedModel = field(init=False)
    optimizer: MuonAdamW = field(init=False)
    generator: torch.Generator = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    _losses: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        if (self.schedule.steps is None) == (self.schedule.seconds is None):
            raise InputError("a run needs either a number of steps or a time")
        parts = self.accumulate * parallel.processes()
        if self.batch % parts:
            raise InputError(
                f"a batch of {self.batch} slices cannot be cut into {parts} parts (processes x --accumulate)"
            )
        update = _moving_average(self.schedule.average_decay)
        self.average = AveragedModel(self.task.network, multi_avg_fn=update, use_buffers=True)
        schedule = self.schedule
        self.optimizer = MuonAdamW(
            self.task.network,
            self.task.trainable(),
            first_moment=schedule.first_moment,
            weight_decay=schedule.weight_decay,
            muon_ratio=schedule.muon_ratio,
        )
        self.generator = torch.Generator().manual_seed(self.seed)
        device = next(self.task.network.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.task.scaled)
        self._losses = parallel.wrapped(_Losses(self.task))

    @property
    def share(self) -> float:
        """Part of the way done, 0 to 1."""
        if self.schedule.steps is not None:
            return min(1.0, self.step / self.schedule.steps)
        return min(1.0, self.seconds / (self.schedule.seconds or 1.0))

    def run(
        self,
        report: Callable[[Progress], None],
        every: int = 20,
        save_seconds: float = 60.0,
        *,
        validate: Callable[[int], None] | None = None,
        validate_every: int = 0,
    ) -> None:
        """Train to the end of the schedule. KeyboardInterrupt saves ``last.pt`` and goes on to the caller.

        A Ctrl-C waits for the step to end, so that what is saved is whole; a second one does not wait or save.
        ``validate`` gets the step after every ``validate_every`` of them and at the end. Only the first of several
        processes reports, validates and saves.

        Raises
        ------
        InputError
            A loss or its gradient is not finite; ``last.pt`` of the last save is kept.
        """
        self.task.network.train()
        sums: dict[str, float] = {}
        count, saved = 0, time.monotonic()
        origin = saved - self.seconds
        whole, first = True, parallel.rank() == 0
        if not self.step:
            self.save()  # whatever goes wrong, there is a state to go on from
        try:
            with _interrupt_between_steps() as interrupted:
                while self.share < 1:
                    whole = False
                    losses = self._one_step()
                    whole = True
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0.0) + value
                    count += 1
                    stop = self._keep_time(time.monotonic() - origin, interrupted())
                    if self.step % every == 0 or self.share >= 1:
                        means = _means(parallel.gathered(sums), count)
                        progress = Progress(self.step, self.share, self.seconds, self.step * self.batch, means)
                        if first:
                            self._log(progress)
                            report(progress)
                        sums, count = {}, 0
                    if first and validate and (self.share >= 1 or (validate_every and self.step % validate_every == 0)):
                        self.save()  # what is measured is not to be lost after it
                        saved = time.monotonic()
                        validate(self.step)
                    if stop:
                        raise KeyboardInterrupt
                    if time.monotonic() - saved > save_seconds:
                        self.save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            if whole:
                self.save()
            raise
        self.save()

    def _keep_time(self, seconds: float, interrupted: bool) -> bool:
        """Count the time; whether somebody interrupted. All processes must come to the same answers."""
        device = next(self.task.network.parameters()).device
        told = parallel.most(torch.tensor([seconds, float(interrupted)], dtype=torch.float64, device=device))
        self.seconds = float(told[0])
        return bool(told[1])

    def _one_step(self) -> dict[str, float]:
        self.optimizer.set_rate(self.schedule.rate(self.share))
        self.optimizer.zero_grad()
        means: dict[str, float] = {}
        drawn = self.generator.get_state()
        for number in range(self.accumulate):
            self.generator.set_state(drawn)
            last = number == self.accumulate - 1
            index = parallel.rank() * self.accumulate + number
            part = Part(self.step, index, self.accumulate * parallel.processes(), self.share)
            joint = self._losses
            with joint.no_sync() if isinstance(joint, DistributedDataParallel) and not last else nullcontext():
                losses: dict[str, Tensor] = joint(self.generator, part)
                total = losses["total"]
                if not torch.isfinite(total):
                    parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
                    raise InputError(f"step {self.step}: the loss is not finite ({parts}); lower the learning rate")
                torch.autograd.backward(self.scaler.scale(total / self.accumulate))
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + float(value.detach()) / self.accumulate
        scale = self.scaler.get_scale()
        norm = self.optimizer.step(self.scaler, self.schedule.clip_norm)
        if not torch.isfinite(norm) and scale <= 1:
            raise InputError(f"step {self.step}: the gradient is not finite; lower the learning rate")
        self.average.update_parameters(self.task.network)
        self.step += 1
        return means

    def averaged(self) -> nn.Module:
        """The network with averaged weights, in evaluation mode."""
        network: nn.Module = self.average.module
        return network.eval()

    def save(self) -> None:
        """Write ``last.pt``, whole or not at all; it holds tensors and plain values only. The first process writes."""
        if parallel.rank() > 0:
            return
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
        save_tensors(self.folder / "last.pt", content)

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
        other = [key for key, value in self.identity.items() if not _same(key, content.get(key), value)]
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
        if parallel.rank() == 0:
            drop_rows(self.folder / "log.csv", after=self.step)  # of a run that was killed after its last save

    def _log(self, progress: Progress) -> None:
        names = ["step", "seconds", "slices", "learning_rate", *progress.losses]
        rate = self.schedule.rate(progress.share)
        values = [f"{value:.6g}" for value in progress.losses.values()]
        row = [progress.step, f"{progress.seconds:.2f}", progress.slices, f"{rate:.4g}", *values]
        append_row(self.folder / "log.csv", names, row)


def _means(sums: Sequence[Mapping[str, float]], count: int) -> dict[str, float]:
    """Per step and process, of each process's sums; a part that a process has nothing of is 0 there."""
    names = dict.fromkeys(name for one in sums for name in one)
    return {name: sum(one.get(name, 0.0) for one in sums) / (len(sums) * count) for name in names}


class _Losses(nn.Module):
    """A task's losses as a module's forward, which is what DistributedDataParallel can wrap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.network = task.network
        self.beside = nn.ParameterList(task.trainable())

    def forward(self, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        """The losses of ``part``."""
        return self.task.losses(generator, part)


def _same(key: str, kept: Any, wanted: str) -> bool:
    """Whether two identities agree; one written before a key, or a part of spec or record, was added agrees without."""
    if kept is None and key not in ("spec", "record"):
        return True
    if kept == wanted or key not in ("spec", "record"):
        return bool(kept == wanted)
    try:
        if key == "record":
            earlier, record = json.loads(kept), json.loads(wanted)
            if "background" not in earlier["input_statistics"]:
                del record["input_statistics"]["background"]
            return bool(earlier == record)
        return GeneratorSpec.from_dict(json.loads(kept)) == GeneratorSpec.from_dict(json.loads(wanted))
    except (InputError, ValueError, TypeError, KeyError):
        return False


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
