"""The gate refuses what is over budget, names it, and lets the rest through."""

from __future__ import annotations

import re

import pytest

from sccg_bench.aggregate import SliceScores, summarise
from sccg_bench.quality import ENGINE_DRIFT, QualityResult
from sccg_export.gate import DriftBudget, check_drift, worst_slice
from sccg_runtime.errors import InputError, RefusedError

GOOD = {
    "engine_to_fp32_psnr_db": 40.0,
    "engine_delta_psnr_db": -0.1,
    "engine_delta_ssim": -0.002,
    "engine_delta_mae_u8": 0.5,
}


def result(*slices: dict[str, float | None]) -> QualityResult:
    """One case; each slice is on the very edge of the default budget but for what is given."""
    scores = [
        SliceScores("case", f"{number:02d}", {}, {}, dict.fromkeys(ENGINE_DRIFT) | GOOD | given, ())
        for number, given in enumerate(slices)
    ]
    return QualityResult(summarise(scores), tuple(scores), None)


def test_just_inside_every_limit_passes() -> None:
    check_drift(result({}, {}), DriftBudget())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("engine_to_fp32_psnr_db", 39.99, "engine_to_fp32_psnr_db 39.99 (below 40)"),
        ("engine_delta_psnr_db", -0.101, "engine_delta_psnr_db -0.101 (below -0.1)"),
        ("engine_delta_ssim", -0.0021, "engine_delta_ssim -0.0021 (below -0.002)"),
        ("engine_delta_mae_u8", 0.51, "engine_delta_mae_u8 0.51 (above 0.5)"),
    ],
)
def test_each_limit_refuses_alone_and_is_named(name: str, value: float, told: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(told)) as caught:
        check_drift(result({name: value}), DriftBudget())
    assert caught.value.exit_code == 3
    assert str(caught.value).count("(") == 1, "only this one is named"


def test_one_bad_slice_refuses_although_the_mean_is_fine_and_it_is_named() -> None:
    bad = result(*[{"engine_to_fp32_psnr_db": 60.0}] * 5, {"engine_to_fp32_psnr_db": 35.9})
    with pytest.raises(RefusedError, match=r"worst engine_to_fp32_psnr_db 35.9 \(below 36\); worst case/05"):
        check_drift(bad, DriftBudget())
    assert worst_slice(bad) == ("case/05", 35.9)
    check_drift(bad, DriftBudget(min_worst_psnr_db=35.9))


def test_all_that_is_broken_is_listed() -> None:
    with pytest.raises(RefusedError) as caught:
        check_drift(result({"engine_to_fp32_psnr_db": 30.0, "engine_delta_mae_u8": 3.0}), DriftBudget())
    for name in ("engine_to_fp32_psnr_db 30", "worst engine_to_fp32_psnr_db 30", "engine_delta_mae_u8 3"):
        assert name in str(caught.value)


def test_without_a_reference_the_engine_is_still_held_to_its_fp32_network() -> None:
    unpaired = dict.fromkeys(("engine_delta_psnr_db", "engine_delta_ssim", "engine_delta_mae_u8"))
    check_drift(result(unpaired), DriftBudget())
    with pytest.raises(RefusedError, match="engine_to_fp32_psnr_db"):
        check_drift(result(unpaired | {"engine_to_fp32_psnr_db": 20.0}), DriftBudget())


def test_a_figure_that_is_not_a_number_is_over_budget() -> None:
    with pytest.raises(RefusedError, match="engine_delta_ssim of case/01 is nan"):
        check_drift(result({}, {"engine_delta_ssim": float("nan")}, {}), DriftBudget())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_budget_must_be_finite(value: float) -> None:
    with pytest.raises(InputError, match="min_mean_psnr_db"):
        DriftBudget(min_mean_psnr_db=value)
