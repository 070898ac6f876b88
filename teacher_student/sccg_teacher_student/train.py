"""Training of a teacher from end to end: the paper's scCycleGAN on pairs, with validation, logs and exact resume."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from sccg_bench.protocols import Pair
from sccg_bench.results import finite
from sccg_runtime.direction import Direction, modalities, parse_direction
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256, write_text
from sccg_runtime.intensity import Modality
from sccg_runtime.resample import MAX_SIDE
from sccg_teacher_student import parallel
from sccg_teacher_student.bases import SMALLEST_SIDE, check_pairs, collect_bases
from sccg_teacher_student.board import Board
from sccg_teacher_student.checkpoint import load_checkpoint, one_line, save_network, save_tensors
from sccg_teacher_student.data.source import DataSource
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.extractors import parse_features
from sccg_teacher_student.loop import Progress, Schedule, Trainer
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import GeneratorSpec, resnet_spec, student_spec
from sccg_teacher_student.precision import amp_name, choose_amp, choose_device, slices_per_second, use_cores
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.reporter import Reporter
from sccg_teacher_student.teaching import REVERSE, HybridWeights, TeacherTask
from sccg_teacher_student.teaching_slices import TeachingSlices, aligned
from sccg_teacher_student.validation import BEST_BY, Validator
from sccg_teacher_student.views import Base

CONFIG = "train.json"
SaveFormat = Literal["sccg", "cyclegan"]
Optimizer = Literal["adam", "muon"]
MUON_RATIO = 50.0  # Muon's learning rate over Adam's


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that a run is made from; kept as ``train.json`` in its folder. The defaults are the paper's Table 1.

    Attributes
    ----------
    data
        Folder of pairs.
    direction
        ``"mr2ct"``, ``"ct2mr"`` or ``"both"``.
    unpaired_mr, unpaired_ct
        Folders of further slices of one modality.
    intensity
        Settings file that takes the place of the data's own, or None.
    size
        (rows, columns) that all slices are resampled to, or None: as they are stored.
    generator
        ``"standard"`` (CycleGAN's reading of the paper: two down-samplings), ``"literal"`` (its text: none), or a
        name such as ``resnet-32x6-in``.
    epochs, steps, minutes
        One of the three; an epoch takes every pair once.
    batch, accumulate
        Slices per step over all processes, and in how many parts each process computes its share.
    optimizer
        ``"adam"``, or ``"muon"`` for the weights of the generator's convolutions and Adam for everything else.
    learning_rate, decay, average_decay
        Of Adam; whether it warms up and falls (the paper: constant); of the moving average of the weights (the paper:
        none).
    losses
        Weights.
    structure_features
        ``vgg:FILE``, ``encoder`` or ``mind``.
    augment, refine
        Whether pairs are changed, and whether their residual misalignment is removed first.
    validate_every
        Steps from one validation to the next.
    save_format
        ``"cyclegan"`` leaves the best weights in that repository's layout as well.
    seed, device, amp
        Of everything random; ``auto``, ``cpu``, ``cuda``; ``auto``, ``off``, ``bf16``, ``fp16``.
    """

    data: str
    direction: str
    unpaired_mr: tuple[str, ...] = ()
    unpaired_ct: tuple[str, ...] = ()
    intensity: str | None = None
    size: tuple[int, int] | None = (512, 512)
    generator: str = "standard"
    epochs: int | None = 200
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    accumulate: int = 1
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-4
    decay: bool = False
    average_decay: float = 0.0
    losses: HybridWeights = field(default_factory=HybridWeights)
    structure_features: str = "encoder"
    augment: bool = True
    refine: bool = False
    validate_every: int = 500
    save_format: SaveFormat = "sccg"
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"

    def __post_init__(self) -> None:
        if self.direction != "both":
            parse_direction(self.direction)
        lengths = [length for length in (self.epochs, self.steps, self.minutes) if length is not None]
        if len(lengths) != 1 or not 0 < lengths[0] < float("inf"):
            raise InputError("say one of --epochs, --steps and --minutes, above zero")
        if min(self.batch, self.accumulate, self.validate_every) < 1:
            raise InputError("--batch, --accumulate and --validate-every must be above zero")
        if not 0 < self.learning_rate < 1 or not 0 <= self.average_decay < 1 or self.seed < 0:
            raise InputError("--learning-rate and --average-decay must lie between 0 and 1, and --seed be 0 or more")
        if self.save_format not in get_args(SaveFormat):
            raise InputError(f"--save-format {self.save_format!r} is none of {', '.join(get_args(SaveFormat))}")
        if self.optimizer not in get_args(Optimizer):
            raise InputError(f"--optimizer {self.optimizer!r} is none of {', '.join(get_args(Optimizer))}")
        if self.size is not None and not (
            len(self.size) == 2 and all(type(side) is int and SMALLEST_SIDE <= side <= MAX_SIDE for side in self.size)
        ):
            raise InputError(f"--size: two sides of {SMALLEST_SIDE} to {MAX_SIDE} pixels, or stored")
        if self.losses.structure:
            parse_features(self.structure_features)
        teacher_spec(self.generator)

    @property
    def wanted(self) -> tuple[Direction, ...]:
        """Directions that were asked for."""
        return ("mr2ct", "ct2mr") if self.direction == "both" else (parse_direction(self.direction),)

    @property
    def trained(self) -> tuple[Direction, ...]:
        """Directions that learn: with unpaired slices and a cycle the reverse one, too."""
        if len(self.wanted) == 1 and self.losses.cycle and (self.unpaired_mr or self.unpaired_ct):
            return *self.wanted, REVERSE[self.wanted[0]]
        return self.wanted

    def to_json(self) -> str:
        """JSON text, two spaces deep."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what :meth:`to_json` wrote (InputError where it is damaged or keys differ)."""
        try:
            values = {"size": None} | json.loads(text)
            if set(values) != {item.name for item in fields(cls)}:
                raise InputError(f"{CONFIG}: keys are missing or unknown")
            values["losses"] = HybridWeights(**values["losses"])
            for name in ("unpaired_mr", "unpaired_ct"):
                values[name] = tuple(values[name])
            values["size"] = None if values["size"] is None else tuple(values["size"])
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{CONFIG} is damaged: {one_line(error)}") from None


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "cpu": {
        "size": None,
        "generator": "resnet-32x6-in",
        "epochs": None,
        "minutes": 45.0,
        "batch": 2,
        "optimizer": "muon",
        "learning_rate": 4e-4,
        "decay": True,
        "average_decay": 0.995,
        "losses": HybridWeights(structure=1.0),
        "validate_every": 200,
    },
}
"""What differs from Table 1. ``cpu``: a generator of a seventh of the work, weights that average over steps, and of
structural consistency no more than does not pull MR's texture into CT."""


def teacher_spec(name: str) -> GeneratorSpec:
    """Spec of ``standard``, ``literal`` or a ResNet's name (InputError otherwise)."""
    if name in ("standard", "literal"):
        return resnet_spec(64, 9, "instance", downsamples=2 if name == "standard" else 0)
    spec = student_spec(name)
    if spec.family != "resnet":
        raise InputError(f"--generator {name}: a teacher is standard, literal or resnet-WxB[-bn|-in]")
    return spec


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

    Leaves ``train.json``, ``log.csv``, TensorBoard events, ``validation_*.csv``, ``sheets/``, ``last.pt`` (the last
    state, also a teacher), ``teacher_*.safetensors`` (the best), ``discriminator_*.safetensors`` and ``run.json``.
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
            told = _teller(direction, board, reporter)
            validators.append(Validator(folder, pairs, spec, record, told))

        def validate(step: int) -> None:
            averaged = trainer.averaged()
            for validator in validators:
                validator.run(step, averaged.get_submodule(validator.direction))

        def report(progress: Progress) -> None:
            board.add("loss", progress.losses, progress.step)
            reporter.training(progress)

        trainer.run(report, validate=validate, validate_every=config.validate_every)
        validate(trainer.step)
    _save_others(config, task, validators, folder)
    facts = {
        "schema": "sccg-train/1",
        "generator": spec.name,
        "parameters": sum(parameter.numel() for parameter in generators[config.wanted[0]].parameters()),
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
            raise InputError(f"{pair.case}/{pair.slice} is not a pair: MR and CT are both needed (see --unpaired)")
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
            source, cases, direction, paths, settings, strides=(spec.stride,), reverse=None, device=device
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
    images = []
    for base in slices.pairs:
        mr, ct = base.load()
        image = mr if direction == "mr2ct" else ct
        if image is not None:
            images.append(image[None])
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


def _teller(direction: Direction, board: Board, reporter: Reporter) -> Any:
    def told(step: int, figures: dict[str, float]) -> None:
        board.add(direction, figures, step)
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        reporter.say(f"step {step}, {direction} on held-out slices: {text}")

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
