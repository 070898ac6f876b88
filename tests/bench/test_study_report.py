"""The table and the plot of a study: engines alone, fastest first, and what each one misses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sccg_bench.latency import summarise_blocks
from sccg_bench.report.aims import aims_table
from sccg_bench.report.charts import drift_figure
from sccg_bench.report.study import computed, engines, missed, students_by_patient, study_table
from sccg_bench.results import Results, Row

GOOD = Row(
    name="int8, good",
    engine="openvino",
    precision="int8",
    precision_ran={"bf16": 2, "int8": 9},
    latency_ms=summarise_blocks([[4.0]]),
    speedup_vs_teacher=200.0,
    quality={"hf_ratio": 1.0, "hf_corr": 0.95, "phase_ratio": 1.1, "bias_soft_u8": -0.5, "bias_bone_u8": 0.0},
    drift={
        "to_teacher_psnr_db": 33.0,
        "to_teacher_psnr_head_db": 30.0,
        "delta_psnr_db": 0.0,
        "delta_ssim": 0.0,
        "delta_iou_bone": 0.0,
    },
    engine_drift={"engine_to_fp32_psnr_head_db": 45.0},
    detail_against="teacher",
    per_slice=(
        {"case": "a", "slice": "1", "drift": {"to_teacher_psnr_head_db": 35.0}},
        {"case": "a", "slice": "2", "drift": {"to_teacher_psnr_head_db": 25.0}},
        {"case": "a", "slice": "3", "drift": {"to_teacher_psnr_head_db": None}},
    ),
)
PLAIN = replace(GOOD, name="int8, s2d-48x6-plain-8min", speedup_vs_teacher=100.0)
STUDY = Results(
    machine={},
    provenance={},
    direction="mr2ct",
    rows=(
        Row(
            name="teacher",
            role="teacher",
            engine="torch",
            latency_ms=summarise_blocks([[800.0]]),
            quality={"hf_ratio": 0.5, "hf_corr": 0.1, "phase_ratio": 1.1},
            detail_against="reference",
        ),
        replace(GOOD, name="teacher fp32", role="teacher engine", precision="fp32", precision_ran=None),
        replace(GOOD, name="teacher int8", role="teacher engine"),
        Row(name="blurred", role="control", drift={"to_teacher_psnr_db": 30.0}),
        replace(GOOD, name="PyTorch, s2d-48x6-plain-8min", engine="torch", precision="fp32", precision_ran=None),
        PLAIN,
        replace(GOOD, name="PyTorch, good", engine="torch", precision="fp32", precision_ran=None),
        replace(
            GOOD, name="PyTorch, refused", engine="torch", precision="fp32", precision_ran=None, speedup_vs_teacher=10.0
        ),
        GOOD,
    ),
)


def test_students_are_their_engines_fastest_first() -> None:
    names = [row.name for row in engines(STUDY).rows]
    students = ["good", "s2d-48x6-plain-8min", "refused, PyTorch"]
    assert names == ["teacher", "teacher fp32", "teacher int8", "blurred", *students]
    lines = {line[0]: line for line in study_table(STUDY).lines}
    assert list(lines) == names
    assert [lines[name][1] for name in ("good", "teacher fp32", "blurred")] == ["int8 + bf16", "fp32", "–"]
    assert lines["good"][2:4] == ("4.00", "0.50"), "half of the plain student's time"
    assert lines["good"][5:7] == ("30.00", "25.00 (a/2)")
    assert lines["blurred"][2:4] == ("–", "–")
    assert lines["teacher"][-1] == "–"
    detail = slice(8, 11)
    assert lines["good"][detail] == ("1.000", "0.950", "1.100")
    assert lines["teacher"][detail] == ("–", "–", "–"), "it is held against the real image"


def test_several_engines_of_one_student_are_told_apart() -> None:
    other = replace(GOOD, name="onnx, good", engine="onnxruntime", speedup_vs_teacher=150.0)
    names = [row.name for row in engines(replace(STUDY, rows=(*STUDY.rows, other))).rows if row.role == "model"]
    assert names == ["good, openvino", "good, onnxruntime", "s2d-48x6-plain-8min", "refused, PyTorch"]


@pytest.mark.parametrize(
    ("asked", "ran", "told"),
    [
        ("int8", {"bf16": 2, "int8": 9}, "int8 + bf16"),
        ("int8", {"fp32": 11}, "fp32"),
        ("fp16", {"fp32": 11}, "fp32"),
        ("int8", None, "int8"),
        (None, None, "–"),
    ],
)
def test_the_precision_is_what_ran(asked: str | None, ran: dict[str, int] | None, told: str) -> None:
    assert computed(Row(name="a", precision=asked, precision_ran=ran)) == told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "none"),
        ({"quality": {"hf_ratio": 0.8}}, "hf ratio"),
        ({"quality": {"hf_ratio": 0.8}, "detail_against": "reference"}, "none of 5"),
        ({"quality": {"bias_bone_u8": -1.5}, "engine_drift": None}, "bias of bone"),
        ({"drift": {"delta_iou_bone": -0.02, "delta_ssim": -0.01}}, "Δ SSIM, Δ IoU of bone"),
        ({"drift": {"to_teacher_psnr_head_db": 30.1}}, "worst slice"),
        ({"drift": {"to_teacher_psnr_head_db": 30.1}, "per_slice": ()}, "none of 6"),
        ({"quality": None, "drift": None, "engine_drift": None, "per_slice": ()}, "not measured"),
    ],
)
def test_what_a_student_misses_is_named(changes: dict[str, object], told: str) -> None:
    assert missed(replace(GOOD, **changes)) == told  # type: ignore[arg-type]


def test_the_teacher_and_its_int8_engine_are_in_the_plot() -> None:
    figure = drift_figure(engines(STUDY), teacher=True)
    assert figure is not None
    told = figure.axes[0].get_legend_handles_labels()[1]
    assert {"teacher", "teacher int8", "good", "s2d-48x6-plain-8min", "blurred"} <= set(told)
    assert "teacher fp32" not in told, "it lies at 100 dB"


@pytest.mark.parametrize("teacher_ms", [40.0, 2800.0])
def test_numbers_of_the_logarithmic_axis_do_not_touch(teacher_ms: float) -> None:
    rows = (
        Row(name="teacher", role="teacher", latency_ms=summarise_blocks([[teacher_ms]])),
        *(replace(GOOD, name=f"s2d-64x{n}-h16-g16-nostd-in1-tanh-30min-3072views-seed0, openvino") for n in (2, 3)),
    )
    figure = drift_figure(replace(STUDY, rows=rows), teacher=True)
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    low, high = figure.axes[0].get_xlim()
    told = [label for label in figure.axes[0].get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in told]
    assert len(boxes) >= 3
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes)), [label.get_text() for label in told]


def test_every_patient_is_held_against_the_limits_alone() -> None:
    near = {"to_teacher_psnr_db": 36.0, "to_teacher_psnr_head_db": 33.0}
    others = ("delta_psnr_db", "delta_ssim", "delta_iou_bone")
    quality, drift = GOOD.quality or {}, GOOD.drift or {}
    engine = {"engine_to_fp32_psnr_head_db": 45.0}
    patients = (
        {"case": "a", "slices": 3, "quality": quality | {"hf_ratio": 0.8}, "drift": drift, "engine_drift": engine},
        {"case": "b", "slices": 1, "quality": quality, "drift": near | dict.fromkeys(others), "engine_drift": engine},
    )
    last = {"case": "b", "slice": "7", "drift": {"to_teacher_psnr_head_db": 33.0}}
    row = replace(GOOD, per_patient=patients, per_slice=(*GOOD.per_slice, last))
    control = Row(name="blurred", role="control", per_patient=patients)
    table = students_by_patient(replace(STUDY, rows=(control, row)))
    cells = [dict(zip(table.header, line, strict=True)) for line in table.lines]
    assert [(line["model"], line["patient"], line["slices"]) for line in cells] == [
        ("good", "a", "3"),
        ("good", "b", "1"),
    ]
    assert [line["to teacher, head: dB"] for line in cells] == ["30.00", "33.00"]
    assert [line["worst slice, head: dB"] for line in cells] == ["25.00 (a/2)", "33.00 (b/7)"]
    assert [line["Δ PSNR: dB"] for line in cells] == ["+0.00", "–"]
    assert [line["misses"] for line in cells] == ["hf ratio", "none of 7"]


PRESETS = {"fast": "s2d-8x1", "balanced": "s2d-8x2", "faithful": "s2d-8x3"}
SLIM = replace(GOOD, name="int8, resnet-16x9-in-8min-seed0", speedup_vs_teacher=20.0)


def preset(name: str, **changes: object) -> Row:
    return replace(GOOD, name=f"int8, {name}-8min-seed0", **changes)  # type: ignore[arg-type]


def aims(*rows: Row) -> list[dict[str, str]]:
    table = aims_table(replace(STUDY, rows=rows), PRESETS)
    return [dict(zip(table.header, line, strict=True)) for line in table.lines]


def test_aims_are_those_of_the_preset() -> None:
    soft = {"hf_ratio": 0.87, "hf_corr": 0.91, "phase_ratio": 1.1, "bias_soft_u8": 0.0, "bias_bone_u8": -1.25}
    rows = [preset(name, quality=soft) for name in ("s2d-8x1", "s2d-8x2", "s2d-8x3")]
    missed_by = {(line["preset"], line["misses"]): line["by"] for line in aims(*rows)}
    assert missed_by == {
        ("fast", "bias of bone"): "0.250",
        ("balanced", "bias of bone"): "0.250",
        ("balanced", "hf ratio"): "0.030",
        ("faithful", "bias of bone"): "0.250",
        ("faithful", "hf ratio"): "0.080",
        ("faithful", "hf corr"): "0.020",
    }


def test_nearness_is_held_beside_a_slim_resnet_trained_alike() -> None:
    near = {**(GOOD.drift or {}), "to_teacher_psnr_head_db": 28.0}
    row = preset("s2d-8x1", drift=near)
    (line,) = aims(row, SLIM)
    assert (line["misses"], line["asked for"], line["in the mean"]) == (
        "to teacher, head: dB",
        "at least 28.5",
        "28.000",
    )
    assert line["by"] == "0.500"
    (line,) = aims(preset("s2d-8x2", drift=near), SLIM)
    assert line["by"] == "2.000"
    (line,) = aims(row, replace(SLIM, name="int8, resnet-16x9-in-8min-seed01"))
    assert line["misses"] == "none of 10", "nothing to be held beside"


def test_time_is_held_beside_the_plain_student() -> None:
    (line,) = aims(preset("s2d-8x1", speedup_vs_teacher=180.0), PLAIN)
    assert (line["misses"], line["in the mean"], line["by"]) == ("time, of plain", "0.556", "0.056")
    assert [line["misses"] for line in aims(preset("s2d-8x1"), PLAIN)] == ["none of 11"]


def test_a_patient_that_misses_an_aim_is_named_where_the_mean_does_not() -> None:
    def patient(case: str, ratio: float, near: float) -> dict[str, object]:
        quality, drift = {**(GOOD.quality or {}), "hf_ratio": ratio}, {"to_teacher_psnr_head_db": near}
        return {"case": case, "slices": 3, "quality": quality, "drift": drift}

    row = preset("s2d-8x1", per_patient=(patient("a", 1.2, 28.0), patient("b", 0.9, 30.0)))
    slim = replace(SLIM, per_patient=(patient("a", 1.0, 29.0), patient("b", 1.0, 32.0)))
    near, detail = aims(row, slim)
    assert (near["misses"], near["by"], near["by, patient by patient"]) == ("to teacher, head: dB", "–", "b 0.500")
    assert (detail["misses"], detail["by"], detail["by, patient by patient"]) == ("hf ratio", "–", "a 0.050")
    alone = replace(row, per_patient=(patient("a", 1.2, 20.0),))
    assert [line["misses"] for line in aims(alone, slim)] == ["none of 11"], "one patient's mean is the mean"


def test_a_preset_whose_export_was_refused_is_told() -> None:
    (line,) = aims(replace(preset("s2d-8x2"), engine="torch"), SLIM)
    assert (line["preset"], line["misses"], line["by"]) == ("balanced", "no engine", "–")


def test_a_figure_that_just_misses_its_aim_does_so_in_the_table() -> None:
    (line,) = aims(preset("s2d-8x1", quality={**(GOOD.quality or {}), "phase_ratio": 1.2001}))
    assert line["by"] == "0.0001"


def test_a_study_without_presets_has_no_aims() -> None:
    assert aims(GOOD, SLIM, PLAIN) == []
