"""The drift gate: figures come from bench, the decision is made here.

It judges what export did: the engine against its own FP32 network, directly and through the reference where there is
one. Drift against the teacher is measured and kept, but does not refuse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """

    min_mean_psnr_db: float = 40.0
    min_worst_psnr_db: float = 36.0
    min_delta_psnr_db: float = -0.1
    min_delta_ssim: float = -0.002
    max_delta_mae_u8: float = 0.5

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"drift budget: {name} must be a finite number")


def check_drift(result: QualityResult, budget: DriftBudget) -> None:
    """Refuse an engine that changed the picture more than its budget.

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
    limits: Sequence[tuple[str, float | None, float, bool]] = (
        ("engine_to_fp32_psnr_db", figures["engine_to_fp32_psnr_db"], budget.min_mean_psnr_db, True),
        ("worst engine_to_fp32_psnr_db", worst[1], budget.min_worst_psnr_db, True),
        ("engine_delta_psnr_db", figures["engine_delta_psnr_db"], budget.min_delta_psnr_db, True),
        ("engine_delta_ssim", figures["engine_delta_ssim"], budget.min_delta_ssim, True),
        ("engine_delta_mae_u8", figures["engine_delta_mae_u8"], budget.max_delta_mae_u8, False),
    )
    broken = [
        f"{name} {value:.4g} ({'below' if at_least else 'above'} {limit:g})"
        for name, value, limit, at_least in limits
        if value is not None and (value < limit if at_least else value > limit)
    ]
    if broken:
        raise RefusedError(
            f"the engine changed the picture more than its budget: {'; '.join(broken)}; worst {worst[0]}"
        )


def worst_slice(result: QualityResult) -> tuple[str, float]:
    """(``case/slice``, dB) of the slice on which the engine is farthest from its FP32 network."""
    scored = [
        (f"{scores.case}/{scores.slice}", value)
        for scores in result.slices
        if (value := scores.engine_drift["engine_to_fp32_psnr_db"]) is not None
    ]
    return min(scored, key=lambda item: item[1])
