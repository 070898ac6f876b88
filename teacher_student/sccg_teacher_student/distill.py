"""Distillation from end to end: teacher, data, labels, training, a student that was reloaded and run."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sccg_bench.protocols import Pair
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import sha256, write_text
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student import parallel
from sccg_teacher_student.bases import Bases, check_pairs, collect_bases
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint, load_discriminator, save_checkpoint
from sccg_teacher_student.data.source import DataSource
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.distillation import DistillTask
from sccg_teacher_student.features import FeatureMatch
from sccg_teacher_student.gauge import FEWEST_CASES, FEWEST_SLICES, DetailGauge, keep_out
from sccg_teacher_student.labels import LabelCache, Labeller, gib_of, make_labeller
from sccg_teacher_student.loop import Schedule, Trainer
from sccg_teacher_student.losses import CELL
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.cost import parameters
from sccg_teacher_student.networks.inference import infer
from sccg_teacher_student.networks.spec import student_spec
from sccg_teacher_student.precision import amp_name, choose_amp, choose_device, use_cores
from sccg_teacher_student.probe import INVARIANT_DB, probe_teacher
from sccg_teacher_student.record import TrainingRecord, other_scale
from sccg_teacher_student.reporter import Reporter
from sccg_teacher_student.views import RECIPE, Base

LABELS = "labels.json"
LABEL_SHARE = 0.5  # of the minutes; see docs/compression.md
FEW_DRAWS = 4  # of each view; below, labels took the time that steps lacked
FREE_SHIFT = 16
COMPARED = 8  # slices at most, on which a student read back is compared with the trained one


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


def distill(
    config: DistillConfig,
    source: DataSource,
    folder: Path,
    cache_root: Path,
    reporter: Reporter,
    *,
    resume: bool = False,
) -> DistillResult | None:
    """Make a student; None on all processes but the first.

    Leaves ``labels.json``, ``log.csv``, ``last.pt``, ``student.safetensors``, ``run.json``.

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
    reverse = load_checkpoint(Path(config.reverse_teacher)) if config.reverse_teacher else None
    if teacher.record is not None:
        source = teacher.record.sees(source)
        teacher.record.check_intensities(source, teacher.path.name)
    _check_reverse(config, reverse, source)
    if config.critic:
        load_discriminator(Path(config.critic))
    spec, amp = student_spec(config.student), choose_amp(config.amp, device)
    if config.taps:  # wrong names are told before anything that takes time
        FeatureMatch(teacher.generator, build_generator(spec), config.taps, (64, 64))
    train, val = training_cases(source, seed=config.seed)
    made = collect_bases(
        source,
        train,
        config.direction,
        [Path(path) for path in config.unpaired],
        Path(config.intensity) if config.intensity else None,
        strides=(teacher.spec.stride, spec.stride, CELL),
        reverse=reverse,
        device=device,
        say=reporter.say,
    )
    bases = made.slices
    acquired = [base for base in bases if not base.synthetic]  # a reverse teacher takes seconds for each of the others
    if config.losses.reference and all(base.load()[1] is None for base in acquired):
        raise InputError("--weight-reference needs real images of the output modality: no training slice has one")
    pairs = list(source.pairs(val or train[:1]))
    check_pairs(pairs, config.direction, made.size)
    record = TrainingRecord.of(
        source,
        config.direction,
        _spread(acquired, 128),
        (train, val),
        teacher_sha256=teacher.sha256,
        unpaired=config.unpaired,
    )
    for guide in (teacher, reverse):
        if guide is not None and guide.record is not None:
            if guide.record.simulated_data and not record.simulated_data:
                record = replace(record, simulated_data=True)
                reporter.say(f"{guide.path.name} learned from simulated data: the student counts as simulated, too")
            for told in other_scale(guide.path.name, guide.record, made.size, source.spacing_mm(train)):
                reporter.say(told)
    if config.views and not resume and (needed := gib_of(config.views, made.size)) > config.cache_gib:
        raise InputError(f"{config.views} views take {needed:.2g} GiB, more than --cache-gib {config.cache_gib:g}")
    label, label_engine = make_labeller(teacher.generator, made.size, device)
    reporter.say(
        f"{len(bases)} input slices ({len(train)} training cases: {', '.join(train)}; {made.unpaired} unpaired "
        f"slices); validation: {', '.join(val) or 'none'}; teacher runs in {label_engine}"
    )
    probe = probe_teacher(label, _fullest(acquired)[None])
    reporter.say("teacher follows " + ", ".join(f"{name} to {value:.0f} dB" for name, value in probe.items()))
    if spec.standardise and probe["affine"] < INVARIANT_DB:
        reporter.say("the teacher depends on brightness and contrast, the student's standardisation removes both")

    learned, kept = keep_out(bases) if config.detail else (bases, [])
    if kept:
        reporter.say(f"{kept[0].case} is kept out of the labelled views, to gauge the student's sharpness")
    elif config.detail:
        reporter.say(
            f"fewer than {FEWEST_CASES} acquired cases, or none of {FEWEST_SLICES} slices: none is kept out to gauge "
            "the student's sharpness, which is as it comes (--detail 0)"
        )
    key = _cache_key(config, teacher, reverse, made, kept, label_engine)
    cache = LabelCache(cache_root / key, learned, config.seed)
    seconds = None if config.minutes is None else LABEL_SHARE * config.minutes * 60 - (time.monotonic() - started)
    views = config.views if config.views or config.minutes else 2 * len(learned)
    if resume:  # the run's batches are drawn from the labels that it began with
        (views, before), seconds = _recorded(folder / LABELS), None
        if before != label_engine:
            reporter.say(f"its labels were made by {before}: the rest is learned from those of {label_engine}")
    cache = _filled(cache, label, config, views, seconds, reporter)
    if parallel.rank() == 0:
        write_text(folder / LABELS, json.dumps({"views": len(cache), "engine": label_engine}) + "\n")

    torch.manual_seed(config.seed)
    student = build_generator(spec)
    gauge = _gauge(kept, label, config.detail, device) if kept else None
    task = DistillTask(
        student,
        cache,
        config.losses,
        batch=config.batch,
        shift=FREE_SHIFT if probe["shift4"] >= INVARIANT_DB else 0,
        device=device,
        amp=amp,
        teacher=teacher.generator if config.losses.features else None,
        taps=config.taps,
        gauge=gauge,
        critic=None if config.critic is None else Path(config.critic),
    )
    if _compiles(config, device):
        reporter.say("compiling student and losses before the first step")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", _compiled_folder(cache_root))
        task.compile()
    left = None
    if config.minutes is not None:
        left = parallel.agreed(max(1.0, config.minutes * 60 - (time.monotonic() - started) - 2))
    schedule = Schedule(
        steps=config.steps, seconds=left, learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    identity = {"spec": json.dumps(spec.to_dict()), "record": json.dumps(record.to_dict())}
    trainer = Trainer(task, schedule, config.batch, folder, identity, config.seed)
    if resume:
        trainer.restore()
        started -= trainer.seconds  # of the run's earlier parts
    trainer.run(reporter.training)
    if parallel.rank() > 0:
        return None
    draws = trainer.step * config.batch / len(cache)
    if config.minutes and not config.views and draws < FEW_DRAWS:
        reporter.say(f"each labelled view was drawn {draws:.1f} times: a smaller --views leaves more time for steps")

    trained = trainer.averaged().cpu()
    path = folder / "student.safetensors"
    save_checkpoint(path, trained, spec, record)
    outputs = _reload_and_run(path, trained, pairs, config.direction)
    facts = {
        "schema": "sccg-distill/1",
        "student": spec.name,
        "parameters": parameters(trained),
        "student_sha256": sha256(path),
        "teacher_sha256": teacher.sha256,
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "validated_on_training_cases": not val,
        "views": len(cache),
        "label_engine": label_engine,
        "teacher_probe_db": probe,
        "amp": amp_name(amp),
        "gauge": None if gauge is None else {"case": kept[0].case, **gauge.state()},
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    write_text(folder / "run.json", json.dumps(facts, indent=2) + "\n")
    labels = [label(pair.given(config.direction)) for pair in pairs]
    return DistillResult(load_checkpoint(path), pairs, labels, outputs, facts)


def _filled(
    cache: LabelCache,
    label: Labeller,
    config: DistillConfig,
    views: int | None,
    seconds: float | None,
    reporter: Reporter,
) -> LabelCache:
    """The cache with its labels: the first process makes them, the others read as many."""
    if parallel.rank() == 0:
        cache.fill(
            label,
            limit_gib=config.cache_gib,
            views=views,
            seconds=seconds,
            progress=lambda count, spent: reporter.labels(count, spent, seconds, views),
        )
        if config.views and len(cache) < config.views:
            reporter.say(f"{len(cache)} instead of {config.views} views: no more fit into the minutes")
    made = parallel.agreed(len(cache))
    if parallel.rank() == 0:
        return cache
    theirs = LabelCache(cache.folder, cache.bases, config.seed)
    theirs.fill(label, limit_gib=config.cache_gib, views=made)
    return theirs


def _check_reverse(config: DistillConfig, reverse: Checkpoint | None, source: DataSource) -> None:
    if reverse is None:
        return
    if not config.unpaired:
        raise InputError("--reverse-teacher makes inputs of --unpaired slices of the output modality: there are none")
    if reverse.sha256 == sha256(Path(config.teacher)):
        raise InputError(
            f"--reverse-teacher {reverse.path.name} is the teacher itself, not that of the other direction"
        )
    if reverse.direction == config.direction:
        raise InputError(
            f"--reverse-teacher {reverse.path.name} is of {config.direction}, too, not of the other direction"
        )
    if reverse.record is not None:
        reverse.record.check_intensities(source, reverse.path.name)


def _compiles(config: DistillConfig, device: torch.device) -> bool:
    """Whether a run on a CPU makes up for half a minute of compiling; taps see nothing of a compiled network."""
    long = config.steps >= 1000 if config.steps is not None else (config.minutes or 0) >= 5
    return long and device.type == "cpu" and parallel.processes() == 1 and not config.taps


def _compiled_folder(cache_root: Path) -> str:
    """Where compiled code is kept and nobody else writes; PyTorch's own place is one that everybody may write to.

    PyTorch does not quote the path for the compiler: one that needs it gives way to a temporary folder.
    """
    folder = str((cache_root / "compiled").resolve())
    return folder if shlex.quote(folder) == folder else tempfile.mkdtemp(prefix="sccg-compiled-")


def _gauge(kept: Sequence[Base], label: Labeller, wanted: float, device: torch.device) -> DetailGauge:
    images = [base.load()[0][None] for base in kept]
    labels = [label(image) for image in images]
    given, made = (torch.from_numpy(np.stack(part)).to(device) for part in (images, labels))
    return DetailGauge(given, made, wanted)


def _fullest(bases: Sequence[Base]) -> FloatArray:
    return max((base.load()[0] for base in bases[:: max(1, len(bases) // 16)]), key=lambda image: float(image.mean()))


def _spread(bases: Sequence[Base], count: int) -> Iterator[FloatArray]:
    """Inputs (1, H, W) of ``count`` bases or more, fewer than twice as many; of all where there are not so many."""
    step = max(1, len(bases) // count)
    return (base.load()[0][None] for base in bases[::step])


def _cache_key(
    config: DistillConfig,
    teacher: Checkpoint,
    reverse: Checkpoint | None,
    bases: Bases,
    kept: Sequence[Base],
    label_engine: str,
) -> str:
    """Hash of everything that the labels depend on, the slices' values included."""
    content = [
        RECIPE,
        teacher.sha256,
        reverse.sha256 if reverse else None,
        label_engine,
        config.seed,
        bases.size,
        bases.fingerprint,
        kept[0].case if kept else None,
    ]
    return sha256(json.dumps(content).encode())[:16]


def _recorded(path: Path) -> tuple[int, str]:
    """(views, engine of the labels) that a run began with."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        views, engine = values["views"], str(values["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        views, engine = None, ""
    if type(views) is not int or views < 1:
        raise InputError(f"{path} is missing or damaged: this run cannot be resumed")
    return views, engine


def _reload_and_run(path: Path, trained: nn.Module, pairs: Sequence[Pair], direction: Direction) -> list[FloatArray]:
    """Outputs of the student as read back from disk, checked on some slices to be those of the trained one.

    Both are laid out alike in memory: instance norm of a blank slice makes any difference of rounding large.
    """
    reloaded = load_checkpoint(path).generator
    trained = trained.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = [pair.given(direction) for pair in pairs]
    outputs = [infer(reloaded, image) for image in images]
    for index in range(0, len(pairs), math.ceil(len(pairs) / COMPARED)):
        if not np.allclose(outputs[index], infer(trained, images[index]), atol=1e-4):
            raise RefusedError(f"{path} read back differs from the student that was trained")
    return outputs
