"""Limits that figures are held against, and the paper's targets; what the report's "can I ship it" rests on.

They are engineering limits. None of them is a clinical validation, and none replaces looking at the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sccg_bench.quality import DETAIL
from sccg_bench.results import Results, Row
from sccg_runtime.direction import Direction

PAPER_REMARK = (
    "Targets as the paper states them. Its printed PSNR (35.77 dB for sCT) and MAE (11.7-14.9 of 255) cannot be on one "
    "scale, and what its IoU is of is not stated: only the targets, SSIM and MAE are comparable."
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure and the range that it must lie in; None leaves that side open."""

    label: str
    group: str
    name: str
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The range in words, such as ``at least 40``."""
        low, high = (None if each is None else f"{each:g}".replace("-", "−") for each in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low} to {high}"
        return f"at least {low}" if low is not None else f"at most {high}"


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
FRONTIER = (
    Limit("hf ratio", "quality", "hf_ratio", low=0.9, high=1.1),
    Limit("hf corr", "quality", "hf_corr", low=0.9),
    Limit("phase ratio", "quality", "phase_ratio", high=1.2),
    Limit("Δ PSNR", "drift", "delta_psnr_db", low=-0.1),
    Limit("Δ SSIM", "drift", "delta_ssim", low=-0.002),
    Limit("Δ IoU of bone", "drift", "delta_iou_bone", low=-0.01),
    Limit("bias of soft tissue", "quality", "bias_soft_u8", low=-1, high=1),
    Limit("bias of bone", "quality", "bias_bone_u8", low=-1, high=1),
    Limit("engine to FP32", "engine_drift", "engine_to_fp32_psnr_head_db", low=42),
)
"""What the default student is to keep, beside :data:`WORST_SLICE_DB`."""
WORST_SLICE_DB = 5.0
"""How far the worst slice's PSNR to the teacher inside the head may lie under the mean, dB."""
_TO_TEACHER_DB: dict[Direction | None, float] = {"mr2ct": 28, "ct2mr": 32}


def limits(direction: Direction | None) -> tuple[Limit, ...]:
    """The limits of a compressed model, by direction."""
    return (
        Limit("PSNR to teacher, dB", "drift", "to_teacher_psnr_db", low=_TO_TEACHER_DB.get(direction, 28)),
        Limit("High-frequency energy ratio", "quality", "hf_ratio", low=0.8, high=1.2),
        Limit("PSNR change against reference, dB", "drift", "delta_psnr_db", low=-0.5),
        Limit("SSIM change against reference", "drift", "delta_ssim", low=-0.01),
        Limit("PSNR of the engine to its FP32 network, dB", "engine_drift", "engine_to_fp32_psnr_db", low=40),
        Limit("PSNR change of the engine, dB", "engine_drift", "engine_delta_psnr_db", low=-0.1),
    )


def outcomes(row: Row, held: Sequence[Limit]) -> tuple[Outcome, ...]:
    """Hold a row against limits; those on detail only where it was compared with the teacher's."""
    found = []
    for limit in held:
        value = row.figure(limit.group, limit.name)
        if limit.name in DETAIL and row.detail_against != "teacher":
            value = None  # against the reference it judges the teacher's work
        met = None
        if value is not None:
            met = (limit.low is None or value >= limit.low) and (limit.high is None or value <= limit.high)
        found.append(Outcome(limit, value, met))
    return tuple(found)


def best_row(results: Results) -> Row | None:
    """The row that a report leads with: of the measured models, fewest limits missed, then most known, then fastest.

    The teacher on another engine counts only where there is no compressed model.
    """
    held = limits(results.direction)
    usable = [row for row in results.rows if row.status == "measured" and row.latency_ms]
    measured = [row for row in usable if row.role == "model"] or [row for row in usable if row.role == "teacher engine"]

    def order(row: Row) -> tuple[int, int, float]:
        met = [outcome.met for outcome in outcomes(row, held)]
        return met.count(False), met.count(None), row.latency_ms.p50 if row.latency_ms else 0.0

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
