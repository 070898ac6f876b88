"""The gate breaks where a figure got worse, refuses what cannot be compared, and passes nothing in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sccg_bench.compare import Compared, compare, metric_name, parse_rule
from sccg_bench.latency import Latency
from sccg_bench.results import Results, Row, paper_row
from sccg_bench.run import CONTROL_NAME
from sccg_runtime.errors import InputError

XEON = {"cpu": "Xeon", "physical_cores": 2, "usable_cores": 2}


def row(name: str = "int8", p50: float = 10.0, delta: float | None = 0.0, **given: Any) -> Row:
    values: dict[str, Any] = {
        "latency_ms": Latency(p50, p50, None, p50, p50, 64),
        "drift": {"delta_psnr_db": delta, "to_teacher_psnr_db": 30.0},
        "quality": {"ssim": 0.8},
        "engine": "openvino",
        "engine_version": "1",
        "threads": 2,
        "size": (512, 512),
    }
    return Row(name=name, **(values | given))


def run(*rows: Row, cpu: str | None = "Xeon", **given: Any) -> Results:
    machine = XEON | {"cpu": cpu}
    control = Row(name=CONTROL_NAME, role="control", drift={"delta_psnr_db": -9.0})
    values: dict[str, Any] = {"machine": machine, "provenance": {"cases": ["a"]}, "direction": "mr2ct"}
    return Results(**(values | {"rows": (*rows, control, paper_row())} | given))


def held(a: Results, b: Results, *texts: str, **options: Any) -> dict[str, Compared]:
    rules = [parse_rule(text, (a, b)) for text in texts]
    return {f"{each.row} {each.rule}": each for each in compare(a, b, rules, **options) if each.rule is not None}


@pytest.mark.parametrize(
    ("text", "after", "verdict"),
    [
        ("latency_ms.p50 > 1.1x", row(p50=10.9), "kept"),
        ("latency_ms.p50 > 1.1x", row(p50=11.1), "broken"),
        ("latency.p50>1.1x", row(p50=11.1), "broken"),
        ("p50 > 10", row(p50=10.0), "kept"),
        ("p50 >= 10", row(p50=10.0), "broken"),
        ("delta_psnr_db < -0.1", row(delta=-0.09), "kept"),
        ("delta_psnr_db < -0.1", row(delta=-0.11), "broken"),
        ("ssim < 0.95x", row(quality={"ssim": 0.75}), "broken"),
        ("ssim <= 0.95x", row(quality={"ssim": 0.77}), "kept"),
    ],
)
def test_a_rule_breaks_exactly_beyond_its_number(text: str, after: Row, verdict: str) -> None:
    assert [each.verdict for each in held(run(row()), run(after), text).values()] == [verdict]


def test_throughput_and_whole_series_can_be_held_to_a_rule() -> None:
    def measured(rate: float, end_to_end: float, series: str) -> Results:
        figures = {"throughput": {"slices_per_s": rate}, "series": {"end_to_end_ms": end_to_end}}
        return run(row(**figures), provenance={"cases": ["a"], "series": series})

    before = measured(100.0, 20.0, "a/mr")
    rules = ("throughput.slices_per_s < 0.9x", "end_to_end_ms > 1.2x")
    found = held(before, measured(80.0, 21.0, "a/mr"), *rules)
    assert [each.verdict for each in found.values()] == ["broken", "kept"]
    with pytest.raises(InputError, match=r"series differ \(a/mr; b/mr\)"):
        held(before, measured(100.0, 20.0, "b/mr"), rules[1])


def test_a_ratio_of_differences_is_not_shown() -> None:
    found = held(run(row(delta=0.02)), run(row(delta=0.05)), "delta_psnr_db < -0.1")
    assert [(each.verdict, each.ratio) for each in found.values()] == [("kept", None)]


def test_ratios_refer_to_the_row_of_the_same_name() -> None:
    found = held(run(row("x", 10), row("y", 100)), run(row("y", 105), row("x", 20)), "p50 > 1.1x")
    assert {key: each.verdict for key, each in found.items()} == {"x p50 > 1.1x": "broken", "y p50 > 1.1x": "kept"}
    assert [each.ratio for each in found.values()] == [2.0, 1.05]


def test_what_became_null_is_broken_and_what_was_null_is_told() -> None:
    a, b = run(row("x"), row("y", delta=None)), run(row("x", delta=None), row("y", delta=None))
    found = held(a, b, "delta_psnr_db < -0.1")
    assert [each.verdict for each in found.values()] == ["broken", "not checked"]
    assert [each.note for each in found.values()] == ["null in B (measured), 0 in A", "null in A and in B"]
    failed = Row(name="x", status="failed", note="ValueError: out of luck")
    broken = held(run(row("x")), run(failed), "p50 > 1.1x")["x p50 > 1.1x"]
    assert (broken.verdict, broken.note) == ("broken", "null in B (ValueError: out of luck), 10 in A")
    broken = held(run(row("x")), run(row("x", status="failed", note="killed")), "p50 > 1.1x")["x p50 > 1.1x"]
    assert (broken.verdict, broken.note) == ("broken", "failed in B (killed)"), "its time was measured before"


def test_a_rule_that_no_row_could_be_held_against_is_no_pass() -> None:
    with pytest.raises(InputError, match=r"'p99 > 1.1x' could be checked in no row: int8: null in A and in B"):
        held(run(row()), run(row()), "p99 > 1.1x")
    with pytest.raises(InputError, match="0 in A: no ratio"):
        held(run(row()), run(row()), "delta_psnr_db < 0.9x")


@pytest.mark.parametrize(
    ("other", "after", "reason"),
    [
        ({"cpu": "EPYC"}, row(), "CPUs differ (Xeon; EPYC)"),
        ({"machine": {"cpu": "Xeon", "physical_cores": 4, "usable_cores": 4}}, row(), "cores differ (2; 4)"),
        ({"machine": XEON | {"instruction_sets": ["avx2"]}}, row(), "instruction sets differ (null; avx2)"),
        ({"machine": XEON | {"limited_to": "AVX2"}}, row(), "limits of oneDNN differ (null; AVX2)"),
        ({}, row(engine_version="2"), "engine version differ (1; 2)"),
        ({}, row(threads=1), "threads differ (2; 1)"),
        ({}, row(size=(256, 256)), "size differ (512, 512; 256, 256)"),
        ({"direction": "ct2mr"}, row(), "directions differ (mr2ct; ct2mr)"),
    ],
)
def test_time_ratios_between_different_machines_are_refused_without_force(
    other: dict[str, Any], after: Row, reason: str
) -> None:
    a, b = run(row()), run(after, **other)
    with pytest.raises(InputError) as told:
        held(a, b, "p50 > 1.1x")
    assert reason in str(told.value)
    assert "--force" in str(told.value)
    assert [each.verdict for each in held(a, b, "p50 > 1.1x", force=True).values()] == ["kept"]
    absolute = held(a, b, "p50 > 11")["int8 p50 > 11"]
    assert (absolute.verdict, absolute.ratio) == ("kept", None), "an absolute limit needs no twin, a ratio does"
    shown = next(each for each in compare(a, b) if each.metric == "latency_ms.p50")
    assert (shown.ratio, shown.note) == (None, reason)


@pytest.mark.parametrize(
    ("name", "one", "two", "reason"),
    [
        ("data", "phantom", "hospital", "data sets differ (phantom; hospital)"),
        ("simulated_data", True, False, "simulated data differ (True; False)"),
    ],
)
def test_quality_ratios_between_data_sets_are_refused(name: str, one: object, two: object, reason: str) -> None:
    a, b = (run(row(), provenance={"cases": ["a"], name: value}) for value in (one, two))
    with pytest.raises(InputError) as told:
        held(a, b, "ssim < 0.95x")
    assert reason in str(told.value)


def test_an_unnamed_processor_is_not_taken_for_the_same() -> None:
    with pytest.raises(InputError, match="CPU is not named"):
        held(run(row(), cpu=None), run(row(), cpu=None), "p50 > 1.1x")


def test_quality_ratios_need_the_same_cases_and_not_the_same_machine() -> None:
    assert held(run(row()), run(row(), cpu="EPYC"), "ssim < 0.9x")
    with pytest.raises(InputError, match=r"cases differ \(a; a, b\)"):
        held(run(row()), run(row(), provenance={"cases": ["a", "b"]}), "ssim < 0.9x")


@pytest.mark.parametrize("rule", ["to_teacher_psnr_db < 0.9x", "hf_ratio < 0.9x"])
def test_drift_from_another_teacher_is_no_ratio(rule: str) -> None:
    def measured(teacher: str | None) -> Results:
        return run(row(quality={"hf_ratio": 1.0, "ssim": 0.8}), provenance={"cases": ["a"], "teacher_sha256": teacher})

    with pytest.raises(InputError, match=r"teachers differ \(aa; bb\)"):
        held(measured("aa"), measured("bb"), rule)
    assert held(measured("aa"), measured("aa"), rule)
    assert held(measured("aa"), measured("bb"), "ssim < 0.9x"), "the reference is the same"


@pytest.mark.parametrize("limit", ["0.9x", "0.5"])
def test_figures_of_two_kinds_are_held_to_no_limit(limit: str) -> None:
    teacher, reference = (row(quality={"hf_ratio": 0.9}, detail_against=kind) for kind in ("teacher", "reference"))
    with pytest.raises(InputError, match=r"what detail is held against differ \(teacher; reference\)"):
        held(run(teacher), run(reference), f"hf_ratio < {limit}")
    here, exported = (
        row(engine_drift={"engine_to_fp32_psnr_db": 45.0}, engine_drift_from=kind) for kind in ("this run", "export")
    )
    with pytest.raises(InputError, match=r"origins of engine drift differ \(this run; export\)"):
        held(run(here), run(exported), f"engine_to_fp32_psnr_db < {limit}")
    assert held(run(teacher), run(reference), f"hf_ratio < {limit}", force=True)
    assert held(run(here), run(here), "engine_to_fp32_psnr_db < 0.9x")


def test_as_many_slices_of_the_same_cases_are_needed() -> None:
    a, b = run(row(counts={"slices": 17})), run(row(counts={"slices": 9}))
    with pytest.raises(InputError, match=r"slices differ \(17; 9\)"):
        held(a, b, "ssim < 0.9x")


def test_a_row_that_is_gone_is_an_error_and_one_can_be_chosen() -> None:
    a, b = run(row("x"), row("gone")), run(row("x"), row("new"))
    with pytest.raises(InputError, match=r"B has no row 'gone' .*; it has: x; new"):
        compare(a, b)
    assert {each.row for each in compare(a, b, names=["x"])} == {"x"}
    with pytest.raises(InputError, match="A has no row 'new'"):
        compare(a, b, names=["new"])
    with pytest.raises(InputError, match="nothing to compare"):
        compare(run(), run())


@pytest.mark.parametrize(
    "text", ["", "p50", "p50 > ", "p50 > fast", "p50 = 3", "p50 > 1.1y", "p50 > nan", "> 3", "p50 > 0x"]
)
def test_malformed_rules_say_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match="--fail-if"):
        parse_rule(text, (run(row()),))


def test_an_unknown_metric_is_named_with_its_neighbours() -> None:
    with pytest.raises(InputError, match=r"'delta_psnr' is in neither file; did you mean .*delta_psnr_db"):
        metric_name("delta_psnr", (run(row()),))
    with pytest.raises(InputError, match=r"'quality\.p50' is in neither file"):
        metric_name("quality.p50", (run(row()),))
    assert metric_name("to_teacher_psnr_db", (run(row()),)) == "drift.to_teacher_psnr_db"
    assert metric_name("size_mib", ()) == "size_mib"


def test_differences_are_shown_without_a_ratio() -> None:
    shown = {each.metric: each for each in compare(run(row(delta=0.1)), run(row(delta=0.2)))}
    assert shown["drift.delta_psnr_db"].ratio is None
    assert shown["drift.to_teacher_psnr_db"].ratio == 1.0


def test_values_that_are_not_finite_count_as_null() -> None:
    bad = replace(row(), drift={"delta_psnr_db": float("nan")})
    assert held(run(row()), run(bad), "delta_psnr_db < -0.1").popitem()[1].verdict == "broken"
