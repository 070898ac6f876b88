"""The drift gate: figures come from bench, the decision is made here.

It judges what export did: the engine against its own FP32 network, directly and through the reference where there is
one. Drift against the teacher is measured and kept; it refuses only where the budget says how much may be lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sccg_bench.quality import QualityResult
from sccg_runtime.errors import InputError, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBudget:
    """How much export may change (METRICS "Drift").

    Attributes
    ----------
    min_mean_psnr_db, min_worst_psnr_db
        ``engine_to_fp32_psnr_db`` in the mean over patients, and of the worst slice, in dB on the u8 scale.
    min_delta_psnr_db, min_delta_ssim, max_delta_mae_u8
        Metric of the engine minus metric of its FP32 network, both against the reference.
    max_teacher_psnr_drop_db
        How many dB farther from the teacher than its FP32 network the engine may be; None: this does not refuse.
    """

    min_mean_psnr_db: float = 40.0
    min_worst_psnr_db: float = 36.0
    min_delta_psnr_db: float = -0.1
    min_delta_ssim: float = -0.002
    max_delta_mae_u8: float = 0.5
    max_teacher_psnr_drop_db: float | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"drift budget: {name} must be a finite number")


def check_drift(result: QualityResult, budget: DriftBudget, fp32_to_teacher_db: float | None = None) -> None:
    """Refuse an engine that changed the picture more than its budget.

    Parameters
    ----------
    result
        Figures of the engine.
    budget
        What they are held to.
    fp32_to_teacher_db
        ``to_teacher_psnr_db`` of the engine's FP32 network on the same slices; None where no teacher is at hand.

    Raises
    ------
    RefusedError
        Names every figure that is over budget, and the worst slice.
    """
    for scores in result.slices:  # means leave such values out
        for name, value in scores.engine_drift.items():
            if value is not None and not math.isfinite(value):
                raise RefusedError(f"{name} of {scores.case}/{scores.slice} is {value}: the engine is not used")
    figures = result.summary.engine_drift
    worst = worst_slice(result)
    limits: list[tuple[str, float | None, float, bool]] = [
        ("engine_to_fp32_psnr_db", figures["engine_to_fp32_psnr_db"], budget.min_mean_psnr_db, True),
        ("worst engine_to_fp32_psnr_db", worst[1], budget.min_worst_psnr_db, True),
        ("engine_delta_psnr_db", figures["engine_delta_psnr_db"], budget.min_delta_psnr_db, True),
        ("engine_delta_ssim", figures["engine_delta_ssim"], budget.min_delta_ssim, True),
        ("engine_delta_mae_u8", figures["engine_delta_mae_u8"], budget.max_delta_mae_u8, False),
    ]
    if budget.max_teacher_psnr_drop_db is not None:
        drop = teacher_drop_db(result, fp32_to_teacher_db)
        limits.append(("drop of to_teacher_psnr_db", drop, budget.max_teacher_psnr_drop_db, False))
    broken = [
        f"{name} {value:.4g} ({'below' if at_least else 'above'} {limit:g})"
        for name, value, limit, at_least in limits
        if value is not None and (value < limit if at_least else value > limit)
    ]
    if broken:
        raise RefusedError(
            f"the engine changed the picture more than its budget: {'; '.join(broken)}; worst {worst[0]}"
        )


def teacher_drop_db(result: QualityResult, fp32_to_teacher_db: float | None) -> float | None:
    """How many dB of ``to_teacher_psnr_db`` the engine lost on its FP32 network; None without a teacher."""
    engine_db = result.summary.drift.get("to_teacher_psnr_db")
    return None if engine_db is None or fp32_to_teacher_db is None else fp32_to_teacher_db - engine_db


def worst_slice(result: QualityResult) -> tuple[str, float]:
    """(``case/slice``, dB) of the slice on which the engine is farthest from its FP32 network."""
    scored = [
        (f"{scores.case}/{scores.slice}", value)
        for scores in result.slices
        if (value := scores.engine_drift["engine_to_fp32_psnr_db"]) is not None
    ]
    return min(scored, key=lambda item: item[1])
