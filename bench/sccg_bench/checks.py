"""Limits that figures are held against, and the paper's targets; what the report's "can I ship it" rests on.

They are engineering limits. None of them is a clinical validation, and none replaces looking at the slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sccg_bench.quality import DETAIL
from sccg_bench.results import Results, Row
from sccg_runtime.direction import Direction

PAPER_REMARK = (
    "Targets as the paper states them. Its printed PSNR (35.77 dB for sCT) and MAE (11.7-14.9 of 255) cannot be on one "
    "scale, and what its IoU is of is not stated: only the targets, SSIM and MAE are comparable."
)


NOTHING_SEEN_DB = 40.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure and the range that it must lie in; None leaves that side open.

    ``of_worst_slice``: not of the mean, but of how far that slice lies under it, in dB; a mean above
    :data:`NOTHING_SEEN_DB` counts as that much, since nobody sees what a slice falls behind by there.
    """

    label: str
    group: str
    name: str
    low: float | None = None
    high: float | None = None
    of_worst_slice: bool = False

    @property
    def text(self) -> str:
        """The range in words, such as ``at least 40``."""
        unit = " dB under the mean" if self.of_worst_slice else ""
        low, high = (None if each is None else f"{each:g}".replace("-", "−") for each in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low} to {high}{unit}"
        return f"at least {low}{unit}" if low is not None else f"at most {high}{unit}"

    def met(self, value: float) -> bool:
        """Whether a figure lies in the range."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def missed_by(self, value: float) -> float:
        """How far a figure lies outside of the range; 0 where it lies in it."""
        below = 0.0 if self.low is None else self.low - value
        above = 0.0 if self.high is None else value - self.high
        return max(0.0, below, above)

    def value(self, row: Row) -> float | None:
        """The row's figure, or None; of detail only where it was compared with the teacher's.

        Detail held against the reference judges the teacher's work.
        """
        if self.of_worst_slice:
            worst, mean = row.worst_slice, row.figure(self.group, self.name)
            return None if worst is None or mean is None else min(mean, NOTHING_SEEN_DB) - worst[1]
        against_another = self.name in DETAIL and row.detail_against != "teacher"
        return None if against_another else row.figure(self.group, self.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A limit held against a row; ``met`` is None where the figure was not measured."""

    limit: Limit
    value: float | None
    met: bool | None


PAPER_TARGETS = (
    Limit("SSIM", "quality", "ssim", low=0.5),
    Limit("MAE, 0-255", "quality", "mae_u8", high=20),
    Limit("IoU (foreground)", "quality", "iou_foreground", low=0.5),
    Limit("PSNR, dB (stated as about 30)", "quality", "psnr_db", low=30),
)
WORST_SLICE = Limit("worst slice", "drift", "to_teacher_psnr_head_db", high=5, of_worst_slice=True)
_GUARDS = (
    Limit("phase ratio", "quality", "phase_ratio", high=1.2),
    Limit("Δ PSNR", "drift", "delta_psnr_db", low=-0.1),
    Limit("Δ SSIM", "drift", "delta_ssim", low=-0.002),
    Limit("Δ IoU of bone", "drift", "delta_iou_bone", low=-0.01),
    Limit("bias of soft tissue", "quality", "bias_soft_u8", low=-1, high=1),
    Limit("bias of bone", "quality", "bias_bone_u8", low=-1, high=1),
    Limit("engine to FP32", "engine_drift", "engine_to_fp32_psnr_head_db", low=42),
    WORST_SLICE,
)


def _frontier(ratio: tuple[float, float], correlation: float) -> tuple[Limit, ...]:
    return (
        Limit("hf ratio", "quality", "hf_ratio", *ratio),
        Limit("hf corr", "quality", "hf_corr", low=correlation),
        *_GUARDS,
    )


FRONTIER = _frontier((0.9, 1.1), 0.9)
"""What the default student is to keep."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a preset is for: limits of its own, and of time and nearness beside other students of the study.

    ``share_of_plain``: its time over that of a student without anything that looks at the whole slice, at most.
    ``over_slim_db``: PSNR to the teacher inside the head over that of a slim ResNet trained alike, dB, at least.
    ``to_teacher_db``: PSNR to the teacher on the whole slice, dB, at least, by direction; empty: none is asked.
    """

    share_of_plain: float
    over_slim_db: float
    limits: tuple[Limit, ...]
    to_teacher_db: Mapping[Direction | None, float] = field(default_factory=dict)


AIMS: Mapping[str, Aim] = {
    "fast": Aim(0.50, -1.5, _frontier((0.85, 1.15), 0.85)),
    "balanced": Aim(0.83, 0, FRONTIER, {"mr2ct": 31, "ct2mr": 35}),
    "faithful": Aim(1.67, 1, _frontier((0.95, 1.05), 0.93)),
}
"""By preset."""
_TO_TEACHER_DB: dict[Direction | None, float] = {"mr2ct": 28, "ct2mr": 32}


def limits(direction: Direction | None) -> tuple[Limit, ...]:
    """The limits of a compressed model, by direction."""
    return (
        Limit("PSNR to teacher, dB", "drift", "to_teacher_psnr_db", low=_TO_TEACHER_DB.get(direction, 28)),
        WORST_SLICE,
        Limit("High-frequency energy ratio", "quality", "hf_ratio", low=0.8, high=1.2),
        Limit("High-frequency correlation", "quality", "hf_corr", low=0.85),
        Limit("PSNR change against reference, dB", "drift", "delta_psnr_db", low=-0.5),
        Limit("SSIM change against reference", "drift", "delta_ssim", low=-0.01),
        Limit("PSNR of the engine to its FP32 network, dB", "engine_drift", "engine_to_fp32_psnr_db", low=40),
        Limit("PSNR change of the engine, dB", "engine_drift", "engine_delta_psnr_db", low=-0.1),
    )


def outcomes(row: Row, held: Sequence[Limit]) -> tuple[Outcome, ...]:
    """Hold a row against limits."""
    values = [limit.value(row) for limit in held]
    return tuple(
        Outcome(limit, value, None if value is None else limit.met(value))
        for limit, value in zip(held, values, strict=True)
    )


def best_row(results: Results) -> Row | None:
    """The row that a report leads with: of the measured models, fewest limits missed, then most known, then fastest.

    The teacher on another engine counts only where there is no compressed model.
    """
    held = limits(results.direction)
    usable = [row for row in results.rows if row.status == "measured" and row.latency_ms]
    measured = [row for row in usable if row.role == "model"] or [row for row in usable if row.role == "teacher engine"]

    several = "runs" in results.provenance  # their times are held side by side through the teacher's alone

    def order(row: Row) -> tuple[int, int, float]:
        met = [outcome.met for outcome in outcomes(row, held)]
        time = 1 / (row.speedup_vs_teacher or 1e-9) if several else row.latency_ms.p50 if row.latency_ms else 0.0
        return met.count(False), met.count(None), time

    return min(measured, key=order, default=None)


def control_warning(results: Results) -> str | None:
    """One line if a control that must fail met every limit: then the limits or the data cannot tell blur."""
    held = limits(results.direction)
    for row in results.rows:
        if row.role == "control":
            met = [outcome.met for outcome in outcomes(row, held)]
            if False not in met:
                return f"{row.name} missed no limit: on these slices the limits cannot tell a blurred picture"
    return None
