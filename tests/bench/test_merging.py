"""Runs of several models as one table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sccg_bench.latency import summarise_blocks
from sccg_bench.merging import SEVERAL_RUNS, merge
from sccg_bench.report.charts import drift_figure, svg_bytes
from sccg_bench.report.markdown import markdown
from sccg_bench.results import Results, Row, paper_row
from sccg_runtime.errors import InputError


def row(name: str, p50: float, psnr_db: float) -> Row:
    return Row(
        name=name, engine="openvino", latency_ms=summarise_blocks([[p50]]), drift={"to_teacher_psnr_db": psnr_db}
    )


def run(p50: float, psnr_db: float, cpu: str = "one", command: str = "bench") -> Results:
    return Results(
        machine={"cpu": cpu},
        provenance={"cases": ["a", "b"], "command": command, "simulated_data": True},
        rows=(
            Row(name="teacher", role="teacher", latency_ms=summarise_blocks([[100 * p50]])),
            Row(name="control", role="control", drift={"to_teacher_psnr_db": 30.0}),
            row("int8", p50, psnr_db),
            Row(name="not here", status="not measured", note="no GPU"),
            paper_row(),
        ),
        direction="mr2ct",
    )


def test_models_of_all_runs_stand_behind_teacher_and_controls_once() -> None:
    merged = merge({"first": run(2.0, 25.0), "second": run(4.0, 28.0)})
    assert [one.name for one in merged.rows] == ["teacher", "control", paper_row().name, "int8, first", "int8, second"]
    second = merged.row("int8, second")
    assert second is not None
    assert second.figure("drift", "to_teacher_psnr_db") == 28.0
    assert second.latency_ms is not None
    assert second.latency_ms.p50 == 4.0
    assert merged.warnings == (SEVERAL_RUNS,)


def test_what_differs_between_runs_is_not_told_of_all() -> None:
    runs = {"first": run(2.0, 25.0), "second": replace(run(4.0, 28.0, "two", "other"), warnings=("busy",))}
    merged = merge(runs)
    assert merged.provenance == {"cases": ["a", "b"], "simulated_data": True, "runs": ["first", "second"]}
    assert merged.warnings == ("measured on different machines: one; two", SEVERAL_RUNS, "second: busy")


def test_what_is_common_to_points_of_one_run_is_told_once() -> None:
    both = replace(run(2.0, 25.0), warnings=("busy",))
    merged = merge({"first": both, "second": replace(both, warnings=("busy", "refused"))})
    assert merged.warnings == ("busy", "second: refused")


def test_runs_that_do_not_belong_together_are_refused() -> None:
    first = run(2.0, 25.0)
    with pytest.raises(InputError, match="second is ct2mr, the others are mr2ct"):
        merge({"first": first, "second": replace(first, direction="ct2mr")})
    with pytest.raises(InputError, match="second was measured on other cases"):
        merge({"first": first, "second": replace(first, provenance={"cases": ["a"]})})
    known = {"cases": ["a", "b"], "data": "phantom", "simulated_data": True, "teacher_sha256": "0" * 64}
    for name, other, told in (
        ("data", "hospital", "on another data set"),
        ("simulated_data", False, "on data of another kind"),
        ("teacher_sha256", "1" * 64, "with another teacher"),
    ):
        one, two = (replace(first, provenance=known | changed) for changed in ({}, {name: other}))
        with pytest.raises(InputError, match=f"second was measured {told}"):
            merge({"first": one, "second": two})
    one, two = (
        replace(first, rows=(replace(row("int8", 2.0, 25.0), per_slice=({"case": "a", "slice": name},)),))
        for name in ("1", "2")
    )
    assert len(merge({"first": one, "second": first, "third": one}).rows) > 3, "some do not say their slices"
    with pytest.raises(InputError, match="second was measured on other slices"):
        merge({"first": one, "second": two})
    silent = replace(first, provenance={"cases": ["a", "b"]})
    assert merge({"first": silent, "second": replace(first, provenance=known)}).is_simulated


def test_one_name_of_two_processors_is_told_apart() -> None:
    first = run(2.0, 25.0)
    sets = [replace(first, machine={"cpu": "EPYC", "instruction_sets": one}) for one in (["avx2"], ["avx2", "avx512f"])]
    warned = merge(dict(zip(("first", "second"), sets, strict=True))).warnings
    assert warned == ("measured on different machines: EPYC (avx2); EPYC (avx2, avx512f)",)
    with pytest.raises(InputError, match="no bench run"):
        merge({})


def test_the_table_and_the_plot_show_every_run() -> None:
    merged = merge({"first": run(2.0, 25.0), "second": run(4.0, 28.0)})
    for name in ("int8, first", "int8, second", "control"):
        assert f"| {name} |" in markdown(merged)
    figure = drift_figure(merged)
    assert figure is not None
    svg = svg_bytes(figure)
    assert svg.startswith(b"<?xml")
    for text in (b"int8, first", b"int8, second", b"Pareto front", b"control"):
        assert b"<!-- " + text + b" -->" in svg
    again = drift_figure(merged)
    assert again is not None
    assert svg_bytes(again) == svg, "equal figures give equal bytes"
