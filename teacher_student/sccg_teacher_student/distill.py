"""Distillation from end to end: teacher, data, labels, training, a student that was reloaded and run."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sccg_bench.protocols import Pair
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import sha256, write_text
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import DataSource, open_unpaired
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.distillation import DistillTask, LossWeights
from sccg_teacher_student.features import Tap
from sccg_teacher_student.labels import LabelCache, Labeller, make_labeller
from sccg_teacher_student.loop import Progress, Schedule, Trainer, choose_device, use_cores
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import student_spec
from sccg_teacher_student.probe import INVARIANT_DB, probe_teacher
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.views import RECIPE, Base

LABEL_SHARE = 0.25
FREE_SHIFT = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Everything that a run is made from; kept as ``config.json`` in its folder.

    Attributes
    ----------
    teacher
        Checkpoint path.
    direction
        Of teacher and student.
    data, unpaired
        Folder of pairs, and folders of further input slices.
    intensity
        Settings file that takes the place of the data's own, or None.
    reverse_teacher
        Checkpoint of the other direction: unpaired slices of the *output* modality then become inputs through it.
    student
        Name as in ``student_spec``.
    minutes, steps
        One of both: wall time with the labels included, or optimiser steps.
    views
        Labelled views; None: as many as fit into a quarter of the minutes, or two per slice with ``steps``.
    cache_gib
        Largest size of the label cache in GiB.
    batch, learning_rate, seed
        Of the training.
    device, amp
        ``auto``, ``cpu``, ``cuda``; ``off``, ``bf16``, ``fp16`` or ``auto``.
    losses
        Weights.
    taps
        Of feature matching.
    """

    teacher: str
    direction: Direction
    data: str
    unpaired: tuple[str, ...] = ()
    intensity: str | None = None
    reverse_teacher: str | None = None
    student: str = "balanced"
    minutes: float | None = 30.0
    steps: int | None = None
    views: int | None = None
    cache_gib: float = 4.0
    batch: int = 4
    learning_rate: float = 2e-3
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"
    losses: LossWeights = field(default_factory=LossWeights)
    taps: tuple[Tap, ...] = ()

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise InputError("say either --minutes or --steps")
        if (self.minutes is not None and self.minutes <= 0) or (self.steps is not None and self.steps < 1):
            raise InputError("--minutes and --steps must be above zero")
        if self.batch < 1 or self.cache_gib <= 0 or (self.views is not None and self.views < 1):
            raise InputError("--batch, --views and --cache-gib must be above zero")

    def to_json(self) -> str:
        """JSON text, two spaces deep."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> DistillConfig:
        """Read what :meth:`to_json` wrote (InputError where keys differ)."""
        values = json.loads(text)
        if set(values) != {item.name for item in fields(cls)}:
            raise InputError("config.json: keys are missing or unknown")
        values["losses"] = LossWeights(**values["losses"])
        values["taps"] = tuple(Tap(**tap) for tap in values["taps"])
        values["unpaired"] = tuple(values["unpaired"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What a run left behind.

    Attributes
    ----------
    student
        The checkpoint, reloaded from disk.
    pairs, teacher_outputs, student_outputs
        Validation slices and what both networks made of them, in the same order.
    facts
        ``run.json``: steps, seconds, labels, label engine, probe, versions.
    """

    student: Checkpoint
    pairs: list[Pair]
    teacher_outputs: list[FloatArray]
    student_outputs: list[FloatArray]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Called while a run goes on; the command line draws progress bars from it.

    Attributes
    ----------
    say
        One line of text.
    labels
        (views so far, seconds spent, seconds allowed or None, views wanted or None).
    training
        State after some steps.
    """

    say: Callable[[str], None] = _log.info
    labels: Callable[[int, float, float | None, int | None], None] = lambda *_: None
    training: Callable[[Progress], None] = lambda _: None


def distill(
    config: DistillConfig,
    source: DataSource,
    folder: Path,
    cache_root: Path,
    reporter: Reporter,
    *,
    resume: bool = False,
) -> DistillResult:
    """Make a student; leaves ``config.json``, ``log.csv``, ``last.pt``, ``student.safetensors``, ``run.json``.

    KeyboardInterrupt leaves a folder that ``resume`` goes on from.

    Raises
    ------
    InputError
        Teacher, data or options cannot be used.
    RefusedError
        The student that was written does not give what the trained one gave.
    """
    started = time.monotonic()
    use_cores()
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    teacher = load_checkpoint(Path(config.teacher))
    for note in teacher.notes:
        reporter.say(f"teacher: {note}")
    spec = student_spec(config.student)
    train, val = training_cases(source, seed=config.seed)
    bases, extra = collect_bases(config, source, train, device)
    size = _check_size(bases, teacher.spec.stride, spec.stride)
    label, label_engine = make_labeller(teacher.generator, size, device)
    reporter.say(
        f"{len(bases)} input slices ({len(train)} training cases: {', '.join(train)}; {extra} unpaired slices); "
        f"validation: {', '.join(val) or 'none'}; teacher runs in {label_engine}"
    )
    probe = probe_teacher(label, _fullest(bases)[None])
    reporter.say("teacher follows " + ", ".join(f"{name} to {value:.0f} dB" for name, value in probe.items()))
    if spec.standardise and probe["affine"] < INVARIANT_DB:
        reporter.say("the teacher depends on brightness and contrast, the student's standardisation removes both")

    cache = LabelCache(cache_root / _cache_key(config, teacher, bases, size), bases, config.seed)
    seconds = None if config.minutes is None else LABEL_SHARE * config.minutes * 60 - (time.monotonic() - started)
    views = config.views if config.views or config.minutes else 2 * len(bases)
    if resume:  # the run's batches are drawn from the labels that it began with
        views, seconds = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["views"], None
    cache.fill(
        label,
        limit_gib=config.cache_gib,
        views=views,
        seconds=seconds,
        progress=lambda count, spent: reporter.labels(count, spent, seconds, views),
    )
    write_text(folder / "labels.json", json.dumps({"views": len(cache), "engine": label_engine}) + "\n")

    record = TrainingRecord.of(
        source,
        config.direction,
        _spread(bases, 128),
        (train, val),
        teacher_sha256=teacher.sha256,
        unpaired=config.unpaired,
    )
    torch.manual_seed(config.seed)
    student = build_generator(spec)
    task = DistillTask(
        student,
        cache,
        config.losses,
        batch=config.batch,
        shift=FREE_SHIFT if probe["shift4"] >= INVARIANT_DB else 0,
        device=device,
        amp=_amp(config.amp, device),
        teacher=teacher.generator if config.losses.features else None,
        taps=config.taps,
    )
    left = None
    if config.minutes is not None:
        left = max(1.0, config.minutes * 60 - (time.monotonic() - started) - 2)
    schedule = Schedule(steps=config.steps, seconds=left, learning_rate=config.learning_rate)
    identity = {"spec": json.dumps(spec.to_dict()), "record": json.dumps(record.to_dict())}
    trainer = Trainer(task, schedule, config.batch, folder, identity, config.seed)
    if resume:
        trainer.restore()
    trainer.run(reporter.training)

    trained = trainer.averaged().cpu()
    path = folder / "student.safetensors"
    save_checkpoint(path, trained, spec, record)
    pairs = list(source.pairs(val or train[:1]))
    outputs = _reload_and_run(path, trained, pairs, config.direction)
    facts = {
        "schema": "sccg-distill/1",
        "student": spec.name,
        "parameters": sum(parameter.numel() for parameter in trained.parameters()),
        "student_sha256": sha256(path),
        "teacher_sha256": teacher.sha256,
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "views": len(cache),
        "label_engine": label_engine,
        "teacher_probe_db": probe,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    write_text(folder / "run.json", json.dumps(facts, indent=2) + "\n")
    labels = [label(side(pair, config.direction)) for pair in pairs]
    return DistillResult(load_checkpoint(path), pairs, labels, outputs, facts)


def side(pair: Pair, direction: Direction) -> FloatArray:
    """The input slice (1, H, W) of a pair.

    Raises
    ------
    InputError
        The pair has no slice of that modality.
    """
    image = pair.mr if direction == "mr2ct" else pair.ct
    if image is None:
        raise InputError(f"{pair.case}/{pair.slice} has no {modalities(direction)[0]} slice")
    return image


def collect_bases(
    config: DistillConfig, source: DataSource, train: Sequence[str], device: torch.device
) -> tuple[list[Base], int]:
    """Slices that views are made from: those of the training cases, then the unpaired ones; and how many of those."""
    bases = [
        Base(case, name, _remembered(partial(_load_pair, source, case, name, config.direction)))
        for case in train
        for name in source.slices(case)
    ]
    paired = len(bases)
    settings = Path(config.intensity) if config.intensity else None
    wanted, other = modalities(config.direction)
    reverse: Labeller | None = None
    if config.reverse_teacher:
        generator = load_checkpoint(Path(config.reverse_teacher)).generator
        reverse, _ = make_labeller(generator, bases[0].load()[0].shape[-2:], device)  # type: ignore[arg-type]
    for folder in config.unpaired:
        extra = open_unpaired(Path(folder), other if reverse else wanted, settings)
        for case in extra.cases:
            for name in extra.slices(case):
                load = partial(_load_unpaired, extra, case, name, reverse)
                bases.append(Base(f"{Path(folder).name}/{case}", name, _remembered(load)))
    return bases, len(bases) - paired


_Loaded = tuple[FloatArray, FloatArray | None]


def _remembered(load: Callable[[], _Loaded]) -> Callable[[], _Loaded]:
    return lru_cache(maxsize=1)(load)


def _load_pair(source: DataSource, case: str, name: str, direction: Direction) -> _Loaded:
    pair = source.load(case, name)
    reference = pair.ct if direction == "mr2ct" else pair.mr
    return side(pair, direction)[0], None if reference is None else reference[0]


def _load_unpaired(source: DataSource, case: str, name: str, reverse: Labeller | None) -> _Loaded:
    pair = source.load(case, name)
    image = pair.mr if pair.mr is not None else pair.ct
    if image is None:
        raise InputError(f"{case}/{name} has no slice")
    return (image if reverse is None else np.clip(reverse(image), -1, 1))[0], None


def _check_size(bases: Sequence[Base], *strides: int) -> tuple[int, int]:
    if not bases:
        raise InputError("there is no slice to learn from")
    size: tuple[int, ...] = bases[0].load()[0].shape
    for base in bases:
        shape = base.load()[0].shape
        if shape != size:
            raise InputError(f"{base.case}/{base.slice} is {shape} pixels, {bases[0].case}/{bases[0].slice} {size}")
    stride = int(np.lcm.reduce(strides))
    if any(length % stride for length in size):
        raise InputError(f"slices of {size} pixels: both sides must be multiples of {stride}")
    return size[0], size[1]


def _fullest(bases: Sequence[Base]) -> FloatArray:
    return max((base.load()[0] for base in bases[:: max(1, len(bases) // 16)]), key=lambda image: float(image.mean()))


def _spread(bases: Sequence[Base], count: int) -> list[FloatArray]:
    step = max(1, len(bases) // count)
    return [base.load()[0][None] for base in bases[::step]]


def _cache_key(config: DistillConfig, teacher: Checkpoint, bases: Sequence[Base], size: tuple[int, int]) -> str:
    content = [RECIPE, teacher.sha256, config.direction, config.seed, size, config.data, config.intensity]
    content += [config.reverse_teacher, [(base.case, base.slice) for base in bases]]
    return sha256(json.dumps(content).encode())[:16]


def _amp(name: str, device: torch.device) -> torch.dtype | None:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    known = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in known:
        raise InputError(f"--amp {name!r} is none of auto, off, bf16, fp16")
    if name == "fp16":
        raise InputError("--amp fp16 needs loss scaling, which distillation does not do; use bf16")
    return known[name]


def _reload_and_run(path: Path, trained: nn.Module, pairs: Sequence[Pair], direction: Direction) -> list[FloatArray]:
    """Outputs of the student as read back from disk, after a check that they are those of the trained one."""
    reloaded = load_checkpoint(path).generator
    outputs = []
    with torch.inference_mode():
        for pair in pairs:
            image = torch.from_numpy(side(pair, direction))[None]
            output = reloaded(image)
            if not torch.allclose(output, trained(image), atol=1e-5):
                raise RefusedError(f"{path} read back differs from the student that was trained")
            outputs.append(np.array(output[0].numpy(), np.float32))
    return outputs


def run_folder(root: Path, student: str, direction: Direction) -> Path:
    """A new folder ``root/DATE-TIME-STUDENT-DIRECTION``; a number is added if it is taken."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{student}-{direction}"
    for number in range(1000):
        folder = root / (stem if number == 0 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise InputError(f"no free run folder below {root}")
