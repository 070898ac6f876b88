"""What a distillation is asked for, as its run folder keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

from sccg_runtime.direction import Direction, parse_direction
from sccg_runtime.errors import InputError, one_line
from sccg_teacher_student.features import Tap
from sccg_teacher_student.loss_weights import USUAL_DECAY, LossWeights
from sccg_teacher_student.networks.spec import DEFAULT_STUDENT


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
    critic
        Discriminator that the adversarial term starts from, or None.
    student
        Name as in ``student_spec``.
    minutes, steps
        One of both: wall time with the labels included, or optimiser steps.
    views
        Labelled views; None: as many as fit into half of the minutes, or two per slice with ``steps``.
    cache_gib
        Largest size of the label cache in GiB.
    batch, learning_rate, seed
        Of the training.
    weight_decay
        Decoupled, of Muon and AdamW.
    device, amp
        ``auto``, ``cpu``, ``cuda``; ``off``, ``bf16``, ``fp16`` or ``auto``.
    detail
        Energy of fine detail that the student shall show on a case kept out of the views, relative to the teacher's; 0:
        no case is kept out, and the student is as soft as the losses leave it.
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
    critic: str | None = None
    student: str = DEFAULT_STUDENT
    minutes: float | None = 30.0
    steps: int | None = None
    views: int | None = None
    cache_gib: float = 4.0
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = USUAL_DECAY
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"
    detail: float = 1.0
    losses: LossWeights = field(default_factory=LossWeights)
    taps: tuple[Tap, ...] = ()

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise InputError("say either --minutes or --steps")
        minutes = 1.0 if self.minutes is None else self.minutes
        if not 0 < minutes < float("inf") or (self.steps is not None and self.steps < 1):
            raise InputError("--minutes and --steps must be above zero")
        if self.batch < 1 or not self.cache_gib > 0 or (self.views is not None and self.views < 1):
            raise InputError("--batch, --views and --cache-gib must be above zero")
        if not 0 < self.learning_rate < 1 or not 0 <= self.seed < 2**63:
            raise InputError("--learning-rate must lie between 0 and 1, and --seed be 0 or more, and less than 2^63")
        if not 0 <= self.weight_decay < 1:
            raise InputError("--weight-decay must be 0 or more, and less than 1")
        if self.detail and not 0.25 <= self.detail <= 2:
            raise InputError("--detail must be 0, or lie between 0.25 and 2")
        if self.critic and not self.losses.adversarial:
            raise InputError("--critic needs a --weight-adversarial above zero")
        if bool(self.taps) != (self.losses.features > 0):
            raise InputError("--feature-tap and a --weight-features above zero need each other")

    def to_json(self) -> str:
        """JSON text, two spaces deep."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> DistillConfig:
        """Read what :meth:`to_json` wrote (InputError where it is damaged or keys differ)."""
        try:
            values = json.loads(text)
            values.setdefault("weight_decay", USUAL_DECAY)  # what runs had before it was kept
            if set(values) != {item.name for item in fields(cls)}:
                raise InputError("config.json: keys are missing or unknown")
            if not all(isinstance(values[name], str) for name in ("teacher", "direction", "data", "student")):
                raise InputError("config.json: a path or name is not text")
            values["losses"] = LossWeights(**values["losses"])
            values["taps"] = tuple(Tap(**tap) for tap in values["taps"])
            values["unpaired"] = tuple(values["unpaired"])
            parse_direction(values["direction"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"config.json is damaged: {one_line(error)}") from None
