"""Quality, drift and engine drift are put together as METRICS says, with any part missing."""

from __future__ import annotations

from itertools import pairwise

import bench_fakes as fakes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_bench.aggregate import SliceScores, landmarks, mean_figures, ranked, summarise
from sccg_bench.protocols import Pair
from sccg_bench.quality import DETAIL, DRIFT, ENGINE_DRIFT, QUALITY, Judge, blurred, quality
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Intensity

PAIRS = fakes.pairs()
REFERENCES = [pair.ct for pair in PAIRS if pair.ct is not None]
LEVEL = np.float32(2 / 255)
TEACHER = [np.clip(image - 4 * LEVEL, -1, 1) for image in REFERENCES]


def shifted(levels: float) -> list[np.ndarray]:
    return [image + np.float32(levels) * LEVEL for image in REFERENCES]


def test_ten_levels_too_bright_is_mae_10_and_bias_10() -> None:
    found = quality(PAIRS, shifted(10), REFERENCES, None, "mr2ct").summary
    assert found.quality["mae_u8"] == pytest.approx(10, abs=1e-4)
    assert found.quality["bias_bone_u8"] == pytest.approx(10, abs=1e-4)
    assert found.quality["bias_soft_u8"] == pytest.approx(10, abs=1e-4)
    assert found.quality["hf_ratio"] == pytest.approx(1, abs=1e-4)
    assert found.quality["hf_corr"] == pytest.approx(1, abs=1e-4)
    assert found.drift["to_teacher_mae_u8"] == pytest.approx(10, abs=1e-4)
    assert found.drift["to_teacher_worst5_mae_u8"] == pytest.approx(10, abs=1e-4)
    assert found.drift["delta_mae_u8"] == pytest.approx(10, abs=1e-4)
    assert found.drift["delta_psnr_db"] == pytest.approx(20 * np.log10(25.5) - 100)
    assert found.engine_drift == {}


def test_every_tissue_has_a_figure_of_its_own() -> None:
    """Errors of 2, 4 and 6 levels in air, soft tissue and bone, and of 20 in a lesion of 3x3 pixels."""
    reference = fakes.head(64)
    u8 = (reference[0] + 1) * 127.5
    levels = np.where(u8 < 60, 2.0, np.where(u8 < 200, 4.0, 6.0))
    lesion = np.zeros((64, 64), bool)
    lesion[30:33, 30:33] = True
    levels[lesion] = 20
    output = reference + (levels * LEVEL).astype(np.float32)
    pair = Pair("case", "001", reference, reference, lesion)
    found = quality([pair], [output], [reference - LEVEL], None, "mr2ct").summary
    soft = (u8 >= 60) & (u8 < 200)
    mae_soft = levels[soft].mean()
    for name, expected in (("air", 2), ("soft", mae_soft), ("bone", 6), ("lesion", 20)):
        assert found.quality[f"mae_{name}_u8"] == pytest.approx(expected, abs=1e-3), name
        assert found.drift[f"to_teacher_mae_{name}_u8"] == pytest.approx(expected + 1, abs=1e-3), name
        if name != "air":
            assert found.quality[f"bias_{name}_u8"] == pytest.approx(expected + 1, abs=1e-3), name
    assert found.counts["lesion"] == 1
    without = quality([Pair("case", "001", reference, reference)], [output], None, None, "mr2ct").summary
    assert without.quality["mae_lesion_u8"] is None
    assert without.counts["lesion"] == 0


def test_the_perfect_model_is_capped_on_every_slice() -> None:
    found = quality(PAIRS, REFERENCES, None, None, "mr2ct")
    assert found.summary.counts == {
        "patients": 2,
        "slices": 6,
        "capped": 6,
        "empty_iou_foreground": 0,
        "empty_iou_bone": 0,
        "lesion": 0,
        "no_reference": 0,
        "not_finite": 0,
    }
    assert found.summary.quality["iou_bone"] == found.summary.quality["iou_foreground"] == 1
    assert found.summary.drift == {}
    assert found.detail_against == "reference"


def test_deltas_are_differences_of_the_same_figures_per_slice_and_in_the_mean() -> None:
    judge = Judge(PAIRS, "mr2ct", TEACHER)
    teacher, model = judge.judge(TEACHER, is_teacher=True), judge.judge(shifted(2), TEACHER)
    assert teacher.detail_against == "reference"
    assert teacher.summary.drift == {}
    for name in ("psnr_db", "ssim", "mae_u8"):
        expected = model.summary.quality[name] - teacher.summary.quality[name]
        assert model.summary.drift[f"delta_{name}"] == pytest.approx(expected)
        assert model.summary.engine_drift[f"engine_delta_{name}"] == pytest.approx(expected)
    assert model.summary.engine_drift["engine_to_fp32_psnr_db"] == model.summary.drift["to_teacher_psnr_db"]
    assert set(model.summary.quality) == {*QUALITY, *DETAIL}
    assert set(model.summary.drift) == set(DRIFT)
    assert set(model.summary.engine_drift) == set(ENGINE_DRIFT)


def test_the_blurred_teacher_stays_close_and_loses_its_detail() -> None:
    found = quality(PAIRS, [blurred(image) for image in REFERENCES], REFERENCES, None, "mr2ct").summary
    assert found.drift["to_teacher_psnr_db"] > 18
    assert found.quality["hf_ratio"] < 0.5
    thrice = quality(PAIRS, [blurred(image, 3) for image in REFERENCES], REFERENCES, None, "mr2ct").summary
    assert thrice.quality["hf_ratio"] < found.quality["hf_ratio"]
    np.testing.assert_array_equal(blurred(REFERENCES[0], 2), blurred(blurred(REFERENCES[0])))
    np.testing.assert_allclose(blurred(REFERENCES[0])[0, 30, 30], REFERENCES[0][0, 29:32, 29:32].mean(), rtol=1e-5)


def test_without_references_drift_and_detail_remain() -> None:
    alone = [Pair(pair.case, pair.slice, pair.mr, None) for pair in PAIRS]
    found = quality(alone, shifted(3), REFERENCES, REFERENCES, "mr2ct").summary
    assert found.quality["psnr_db"] is None
    assert found.quality["hf_ratio"] == pytest.approx(1, abs=1e-4)
    assert found.quality["bias_bone_u8"] == pytest.approx(3, abs=1e-4)
    assert found.drift["to_teacher_mae_u8"] == pytest.approx(3, abs=1e-4)
    assert found.drift["delta_psnr_db"] is None
    assert found.engine_drift["engine_to_fp32_mae_u8"] == pytest.approx(3, abs=1e-4)
    assert found.engine_drift["engine_delta_mae_u8"] is None
    assert found.counts["no_reference"] == len(PAIRS)


def test_with_nothing_to_compare_with_everything_is_none() -> None:
    alone = [Pair("case", "001", fakes.head(32), None)]
    found = quality(alone, [fakes.head(32)], None, None, "mr2ct")
    assert set(found.summary.quality.values()) == {None}
    assert found.detail_against is None
    assert found.landmarks == {}


def test_ct2mr_takes_bone_from_the_input_and_has_no_bone_iou() -> None:
    found = quality(PAIRS, shifted(5), REFERENCES, None, "ct2mr").summary
    assert found.quality["iou_bone"] is None
    assert found.quality["bias_bone_u8"] == pytest.approx(5, abs=1e-4)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_constant_slices_are_counted_and_raise_nothing(level: float) -> None:
    flat = np.full((1, 32, 32), level, np.float32)
    found = quality([Pair("case", "001", flat, flat)], [flat], [flat], [flat], "mr2ct").summary
    assert found.quality["iou_foreground"] == 1
    assert found.counts["empty_iou_foreground"] == 1
    assert found.counts["empty_iou_bone"] == int(level < 0.5)
    assert found.quality["psnr_head_db"] is None
    assert found.quality["hf_ratio"] is None


def test_hu_figures_come_only_with_hu() -> None:
    hu = Intensity(modality="CT", kind="hu", low_hu=-1024, high_hu=3000)
    pairs = fakes.pairs(cases=1, slices=8, size=32)
    outputs = [pair.ct for pair in pairs if pair.ct is not None]
    with_hu = quality(pairs, outputs, None, None, "mr2ct", hu)
    assert with_hu.summary.quality["mae_hu"] == 0
    assert with_hu.patients[0].quality["ssim_hu"] == pytest.approx(1)
    assert "mae_hu" not in quality(pairs, outputs, None, None, "mr2ct").summary.quality


@pytest.mark.parametrize("window", [(0, 80), (-160, 240), (-1024, 400), (-200, 2000)])
def test_a_window_that_hides_errors_of_bone_or_air_gives_no_hu_figures(window: tuple[float, float]) -> None:
    narrow = Intensity(modality="CT", kind="hu", low_hu=window[0], high_hu=window[1])
    pairs = fakes.pairs(cases=1, slices=8, size=32)
    outputs = [pair.ct for pair in pairs if pair.ct is not None]
    assert "mae_hu" not in quality(pairs, outputs, None, None, "mr2ct", narrow).summary.quality


@pytest.mark.parametrize("outputs", [[], [fakes.head(32)] * 6])
def test_outputs_that_do_not_fit_are_refused(outputs: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="quality: "):
        quality(PAIRS, outputs, None, None, "mr2ct")


def scores(case: str, name: str, value: float | None) -> SliceScores:
    return SliceScores(case, name, {"psnr_db": value}, {}, {})


def test_every_patient_counts_the_same() -> None:
    found = summarise([scores("a", "1", 10), scores("a", "2", 20), scores("a", "3", None), scores("b", "1", 35)])
    assert found.quality == {"psnr_db": 25}
    assert [(patient.case, patient.slices) for patient in found.patients] == [("a", 3), ("b", 1)]


def test_the_worst_slice_is_the_farthest_from_the_teacher() -> None:
    parts = [
        SliceScores("a", str(index), {"psnr_db": 30.0 - value}, {"to_teacher_psnr_db": value}, {})
        for index, value in enumerate([25.0, 21.0, 30.0])
    ]
    assert {which: part.slice for which, part in landmarks(parts).items()} == {"worst": "1", "median": "0", "best": "2"}
    assert list(landmarks(parts[:1])) == ["worst"]


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=20))
def test_ranking_is_sorted_and_means_stay_inside(values: list[float | None]) -> None:
    order = [part.quality["psnr_db"] for part in ranked([scores("a", "x", value) for value in values])]
    assert order == sorted(value for value in values if value is not None)
    assert all(first <= second for first, second in pairwise(order))
    mean = mean_figures([{"x": value} for value in values]).get("x")
    assert mean is None if not order else order[0] - 1e-9 <= mean <= order[-1] + 1e-9


def test_means_leave_out_what_is_not_finite() -> None:
    assert mean_figures([{"x": float("nan")}, {"x": 2.0}, {"x": float("inf")}, {}]) == {"x": 2.0}


def test_figures_that_are_not_finite_are_counted_and_named() -> None:
    nan, inf = float("nan"), float("inf")
    bad = SliceScores("a", "1", {"psnr_db": nan, "ssim": 0.5}, {"to_teacher_psnr_db": inf}, {})
    good = SliceScores("a", "2", {"psnr_db": 30.0, "ssim": 0.7}, {"to_teacher_psnr_db": 20.0}, {})
    found = summarise([bad, good], {"a": {"mae_hu": nan}})
    assert found.counts["not_finite"] == 3
    assert found.quality["psnr_db"] == 30.0
    assert bad.to_dict()["not_finite"] == ["psnr_db", "to_teacher_psnr_db"]
    assert good.to_dict()["not_finite"] == []
    assert ranked([bad, good]) == [good], "a slice without a finite figure has no rank"
