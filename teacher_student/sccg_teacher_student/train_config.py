"""What a teacher's run is made from, and the presets of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from sccg_runtime.direction import REVERSE, Direction, parse_direction
from sccg_runtime.errors import InputError, one_line
from sccg_runtime.resample import MAX_SIDE
from sccg_teacher_student.bases import SMALLEST_SIDE
from sccg_teacher_student.extractors import parse_features
from sccg_teacher_student.networks.spec import GeneratorSpec, resnet_spec, student_spec
from sccg_teacher_student.teaching import HybridWeights

CONFIG = "train.json"
SaveFormat = Literal["sccg", "cyclegan"]
Optimizer = Literal["adam", "muon"]


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
        if not 0 < self.learning_rate < 1 or not 0 <= self.average_decay < 1 or not 0 <= self.seed < 2**63:
            raise InputError("--learning-rate and --average-decay must lie between 0 and 1, --seed between 0 and 2^63")
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
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
