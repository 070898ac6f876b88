"""Training of a teacher from end to end: the paper's scCycleGAN on pairs, with validation, logs and exact resume."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sccg_bench.protocols import Pair
from sccg_bench.results import finite
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256, write_text
from sccg_runtime.intensity import Modality
from sccg_teacher_student import parallel
from sccg_teacher_student.bases import check_pairs, collect_bases
from sccg_teacher_student.board import Board
from sccg_teacher_student.checkpoint import load_checkpoint, save_network, save_tensors
from sccg_teacher_student.data.source import DataSource
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.loop import Progress, Schedule, Trainer
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.cost import parameters
from sccg_teacher_student.networks.spec import GeneratorSpec
from sccg_teacher_student.precision import amp_name, choose_amp, choose_device, slices_per_second, use_cores
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.reporter import Reporter
from sccg_teacher_student.teaching import TeacherTask
from sccg_teacher_student.teaching_slices import TeachingSlices, aligned
from sccg_teacher_student.train_config import TrainConfig, teacher_spec
from sccg_teacher_student.validation import BEST_BY, Validator
from sccg_teacher_student.views import Base

MUON_RATIO = 50.0  # Muon's learning rate over Adam's


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left behind.

    Attributes
    ----------
    teachers
        Best checkpoint by direction.
    facts
        ``run.json``.
    """

    teachers: dict[Direction, Path]
    facts: dict[str, Any]


def train(
    config: TrainConfig, source: DataSource, folder: Path, reporter: Reporter, *, resume: bool = False
) -> TrainResult | None:
    """Train a teacher; None on all processes but the first.

    Leaves ``log.csv``, TensorBoard events, ``validation_*.csv``, ``sheets/``, ``last.pt`` (the last state, also a
    teacher), ``teacher_*.safetensors`` (the best), ``discriminator_*.safetensors`` and ``run.json``.
    KeyboardInterrupt leaves a folder that ``resume`` goes on from.

    Raises
    ------
    InputError
        Data or options cannot be used, or a loss is not finite.
    """
    started = time.monotonic()
    use_cores()
    device = choose_device(config.device)
    amp = choose_amp(config.amp, device)
    spec = teacher_spec(config.generator)
    source = replace(source, size=config.size)
    train_cases, val = training_cases(source, seed=config.seed)
    pairs = complete(source.pairs(val or train_cases[:1]))
    slices, size = _collect(config, source, train_cases, spec, device, reporter)
    check_pairs(pairs, config.wanted[0], size)
    slices.check_parts(config.batch, config.accumulate * parallel.processes())
    generators: dict[Direction, nn.Module] = {}
    torch.manual_seed(config.seed)
    for direction in config.trained:
        generators[direction] = build_generator(spec)
    task = TeacherTask(
        generators,
        slices,
        config.losses,
        batch=config.batch,
        features=config.structure_features,
        device=device,
        amp=amp,
    )
    records = {direction: _record(config, source, slices, direction, (train_cases, val)) for direction in config.wanted}
    trainer = _trainer(config, task, slices, folder, spec, records[config.wanted[0]])
    if resume:
        trainer.restore()
        started -= trainer.seconds  # of the run's earlier parts
    _introduce(config, slices, size, val, task, reporter)
    if parallel.rank() > 0:
        trainer.run(lambda _: None)
        return None
    plain, chosen = slices_per_second(generators[config.wanted[0]], size, device, amp)
    reporter.say(
        f"generator forward and backward: {chosen:.2f} slices/s with autocast {amp_name(amp)} and channels last, "
        f"{plain:.2f} in plain float32 (x{chosen / plain:.2f})"
    )
    validators = []
    with Board(folder) as board:
        for direction, record in records.items():
            told = _teller(direction, board, reporter, held_out=bool(val))
            validators.append(Validator(folder, pairs, spec, record, told, trainer.step))

        def validate(step: int) -> None:
            averaged = trainer.averaged()
            for validator in validators:
                validator.run(step, averaged.get_submodule(validator.direction))

        def report(progress: Progress) -> None:
            board.add("loss", progress.losses, progress.step)
            reporter.training(progress)

        if trainer.step and trainer.step % config.validate_every == 0:
            validate(trainer.step)  # it may have been broken off
        trainer.run(report, validate=validate, validate_every=config.validate_every)
        validate(trainer.step)
    _save_others(config, task, validators, folder)
    facts = {
        "schema": "sccg-train/1",
        "generator": spec.name,
        "parameters": parameters(generators[config.wanted[0]]),
        "size": list(size),
        "pairs": len(slices.pairs),
        "unpaired": len(slices.unpaired),
        "losses": asdict(config.losses),
        "directions_trained": list(config.trained),
        "structure_features": task.features,
        "steps": trainer.step,
        "processes": parallel.processes(),
        "training_seconds": round(trainer.seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "slices_per_second": round(trainer.step * config.batch / max(trainer.seconds, 1e-9), 3),
        "amp": amp_name(amp),
        "generator_slices_per_second": {"plain_fp32": round(plain, 3), "amp_channels_last": round(chosen, 3)},
        "device": str(device),
        "threads": torch.get_num_threads(),
        "validation_slices": len(pairs),
        "validated_on_training_cases": not val,
        "teachers": {one.direction: _figures(one) for one in validators},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    write_text(folder / "run.json", json.dumps(finite(facts), indent=2, allow_nan=False) + "\n")
    return TrainResult({one.direction: one.checkpoint for one in validators}, facts)


def complete(pairs: Sequence[Pair] | Any) -> list[Pair]:
    """Pairs that all have both sides (InputError otherwise)."""
    found = list(pairs)
    for pair in found:
        if pair.mr is None or pair.ct is None:
            raise InputError(f"{pair.label} is not a pair: MR and CT are both needed (see --unpaired)")
    return found


def _collect(
    config: TrainConfig,
    source: DataSource,
    cases: Sequence[str],
    spec: GeneratorSpec,
    device: torch.device,
    reporter: Reporter,
) -> tuple[TeachingSlices, tuple[int, int]]:
    """The slices and their (rows, columns)."""
    settings = Path(config.intensity) if config.intensity else None

    def collect(direction: Direction, folders: Sequence[str]) -> tuple[list[Base], list[Base], tuple[int, int]]:
        paths = [Path(folder) for folder in folders]
        found = collect_bases(
            source,
            cases,
            direction,
            paths,
            settings,
            strides=(spec.stride,),
            reverse=None,
            device=device,
            say=reporter.say,
        )
        count = len(found.slices) - found.unpaired
        return found.slices[:count], found.slices[count:], found.size

    pairs, mr, size = collect("mr2ct", config.unpaired_mr)
    ct = collect("ct2mr", config.unpaired_ct)[1] if config.unpaired_ct else []
    for base in pairs:
        if base.load()[1] is None:
            raise InputError(f"{base.case}/{base.slice} is not a pair: MR and CT are both needed (see --unpaired)")
    if config.refine:
        reporter.say(f"rigid refinement of {len(pairs)} pairs")
        pairs = [aligned(base, modalities(config.wanted[0])[0]) for base in pairs]
    unpaired: list[tuple[Modality, Base]] = [*(("MR", base) for base in mr), *(("CT", base) for base in ct)]
    return TeachingSlices(pairs, unpaired, config.seed, config.augment), size


def _record(
    config: TrainConfig,
    source: DataSource,
    slices: TeachingSlices,
    direction: Direction,
    cases: tuple[tuple[str, ...], tuple[str, ...]],
) -> TrainingRecord:
    pairs = (base.load() for base in slices.pairs)
    images = (image[None] for mr, ct in pairs if (image := mr if direction == "mr2ct" else ct) is not None)
    return TrainingRecord.of(source, direction, images, cases, unpaired=config.unpaired_mr + config.unpaired_ct)


def _trainer(
    config: TrainConfig,
    task: TeacherTask,
    slices: TeachingSlices,
    folder: Path,
    spec: GeneratorSpec,
    record: TrainingRecord,
) -> Trainer:
    steps = config.steps
    if config.epochs is not None:
        steps = math.ceil(config.epochs * len(slices.pairs) / slices.pairs_per_step(config.batch))
    schedule = Schedule(
        steps=steps,
        seconds=None if config.minutes is None else config.minutes * 60,
        learning_rate=config.learning_rate,
        constant=not config.decay,
        muon_ratio=MUON_RATIO if config.optimizer == "muon" else 0.0,
        first_moment=0.5,  # of the code base (CycleGAN); the paper says Adam only
        weight_decay=0.0,
        clip_norm=None,
        average_decay=config.average_decay,
    )
    identity = {"spec": json.dumps(spec.to_dict()), "record": json.dumps(record.to_dict())}
    identity["structure_features"] = task.features
    return Trainer(task, schedule, config.batch, folder, identity, config.seed, config.accumulate)


def _introduce(
    config: TrainConfig,
    slices: TeachingSlices,
    size: tuple[int, int],
    val: Sequence[str],
    task: TeacherTask,
    reporter: Reporter,
) -> None:
    cases = ", ".join(dict.fromkeys(base.case for base in slices.pairs))
    held = ", ".join(val) or "none held out, a training case stands in"
    resampled = ", resampled where stored otherwise" if config.size else ""
    reporter.say(
        f"{len(slices.pairs)} pairs of {size[0]}x{size[1]} pixels{resampled} ({cases}), "
        f"{len(slices.unpaired)} unpaired slices; "
        f"validation: {held}; trained: {', '.join(config.trained)}; structure features: {task.features}"
    )


def _teller(direction: Direction, board: Board, reporter: Reporter, *, held_out: bool) -> Any:
    kind = "held-out" if held_out else "training"

    def told(step: int, figures: dict[str, float]) -> None:
        board.add(direction, figures, step)
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        reporter.say(f"step {step}, {direction} on {kind} slices: {text}")

    return told


def _save_others(config: TrainConfig, task: TeacherTask, validators: Sequence[Validator], folder: Path) -> None:
    """Discriminators, and with ``cyclegan`` everything in that repository's layout."""
    for validator in validators:
        direction = validator.direction
        critic = task.discriminators.get(direction)
        if critic is not None:
            save_network(folder / f"discriminator_{direction}.safetensors", critic)
        if config.save_format == "cyclegan":
            best = load_checkpoint(validator.checkpoint).generator
            save_tensors(folder / f"latest_net_G_{direction}.pth", best.state_dict())
            if critic is not None:
                state = {name: tensor.cpu() for name, tensor in critic.state_dict().items()}
                save_tensors(folder / f"latest_net_D_{direction}.pth", state)


def _figures(validator: Validator) -> dict[str, Any]:
    step, figures = validator.best
    last = max(validator.rows)
    return {
        "file": validator.checkpoint.name,
        "sha256": sha256(validator.checkpoint),
        "best_by": BEST_BY,
        "best": {"step": step, **figures},
        "last": {"step": last, **validator.rows[last]},
    }
