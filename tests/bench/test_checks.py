"""What a run is held against: the limits, the first screen's answer, and figures that must not flatter."""

from __future__ import annotations

import re
from dataclasses import replace

from report_fakes import FOUND

from sccg_bench.checks import best_row, control_warning, limits, outcomes
from sccg_bench.report.html import html
from sccg_bench.report.summary import summarise
from sccg_bench.report.tables import tables
from sccg_bench.run import CONTROL_NAME


def test_the_first_screen_answers_three_questions() -> None:
    fast, faithful, ship = summarise(FOUND.results)
    assert fast.answer == "4.50 ms per slice"
    assert "400× the teacher" in fast.detail
    assert "1.12 ms at 64×64" in fast.detail
    assert "cited, not measured" in fast.detail
    assert "dB to the teacher" in faithful.answer
    assert "6 slices of 2 patients" in faithful.detail
    assert FOUND.results.rows[2].landmarks["worst"] in faithful.detail
    assert ship.answer == "All 8 limits met"
    assert ship.detail.startswith("6 slices of 2 patients."), "an answer without its sample would be read as more"
    assert "no clinical validation" in ship.detail


def test_the_control_misses_its_limit_and_a_model_that_does_is_not_shipped() -> None:
    results = FOUND.results
    missed = {each.limit.name for each in outcomes(results.row(CONTROL_NAME), limits("mr2ct")) if each.met is False}
    assert "hf_ratio" in missed
    assert control_warning(results) is None
    blurry = replace(results.rows[2], quality={**results.rows[2].quality, "hf_ratio": 0.4})
    bad = replace(results, rows=(*results.rows[:2], blurry))
    assert summarise(bad)[2].answer == "Not as it is: 1 of 8 limits missed"
    assert "High-frequency" in summarise(bad)[2].detail


def test_one_slice_that_is_wrong_is_not_shipped_whatever_the_means_say() -> None:
    row = FOUND.results.rows[2]
    first, *others = row.per_slice
    wrong = {**first, "drift": {**first["drift"], "to_teacher_psnr_head_db": 8.1}}
    for part, kept in (({"hf_corr": 0.4}, row.per_slice), ({}, (wrong, *others))):
        bad = replace(row, quality={**row.quality, **part}, per_slice=kept)
        card = summarise(replace(FOUND.results, rows=(*FOUND.results.rows[:2], bad)))[2]
        assert card.answer == "Not as it is: 1 of 8 limits missed"
    place = f"{first['case']}/{first['slice']}"
    named = rf"worst slice \({place}, inside the head\) \d\d\.\d+, not at most 5 dB under the mean"
    assert re.search(named, card.detail)
    drift = {**row.drift, "to_teacher_psnr_head_db": 90.0}
    seen = {**first, "drift": {**first["drift"], "to_teacher_psnr_head_db": 65.0}}
    good = replace(row, drift=drift, per_slice=(seen, *others))
    card = summarise(replace(FOUND.results, rows=(*FOUND.results.rows[:2], good)))[2]
    assert card.answer == "All 8 limits met", "25 dB under the mean, and nobody could see it"


def test_a_figure_just_beside_its_limit_is_written_so() -> None:
    row = replace(FOUND.results.rows[2], drift={**FOUND.results.rows[2].drift, "to_teacher_psnr_db": 27.99996})
    limit = next(each for each in tables(replace(FOUND.results, rows=(row,))) if each.title.startswith("Limits"))
    assert limit.lines[0][1] == "NOT met (27.99996)"


def test_a_mean_with_slices_that_were_cut_off_is_a_lower_bound() -> None:
    row = FOUND.results.rows[2]
    first, *others = row.per_slice
    cut = {**first, "engine_drift": {**first["engine_drift"], "engine_to_fp32_psnr_db": 100.0}}
    drift = {**row.engine_drift, "engine_to_fp32_psnr_db": 92.9}
    cases = ((92.9, first, "92.90"), (92.9, cut, "≥92.90"), (99.999, first, "100.00"), (99.999, cut, "≥99.99"))
    for mean, part, told in cases:
        drift["engine_to_fp32_psnr_db"] = mean
        found = replace(FOUND.results, rows=(replace(row, engine_drift=drift, per_slice=(part, *others)),))
        assert next(each for each in tables(found) if each.title == "Engine drift").lines[0][1] == told


def test_the_teacher_on_another_engine_is_held_against_the_limits_that_the_first_screen_names() -> None:
    row = replace(FOUND.results.rows[2], role="teacher engine")
    limit = next(each for each in tables(replace(FOUND.results, rows=(row,))) if each.title.startswith("Limits"))
    assert [line[0] for line in limit.lines] == ["int8"]


def test_detail_against_the_reference_is_not_held_to_the_limit_on_detail_against_the_teacher() -> None:
    row = replace(FOUND.results.rows[2], drift=None, detail_against="reference")
    row = replace(row, quality={**row.quality, "hf_ratio": 0.55})
    found = {each.limit.name: each for each in outcomes(row, limits("mr2ct"))}
    assert (found["hf_ratio"].value, found["hf_ratio"].met) == (None, None)
    assert found["engine_to_fp32_psnr_db"].met is not None


def test_an_unsteady_machine_is_no_good_answer() -> None:
    row = FOUND.results.rows[2]
    shaken = replace(row, latency_ms=replace(row.latency_ms, block_p50_high=row.latency_ms.p50 * 2))
    assert summarise(FOUND.results)[0].tone == "good"
    fast = summarise(replace(FOUND.results, rows=(shaken,)))[0]
    assert fast.tone == "open"
    assert "not quiet" in fast.detail


def test_a_control_that_passes_is_a_warning() -> None:
    model = FOUND.results.rows[2]
    passing = replace(FOUND.results, rows=(replace(model, name=CONTROL_NAME, role="control"), model))
    assert "cannot tell a blurred picture" in (control_warning(passing) or "")
    assert "cannot tell a blurred picture" in html(passing)


def test_the_lead_is_the_compressed_model_not_the_teacher_on_another_engine() -> None:
    model = FOUND.results.rows[2]
    engine = replace(
        model, name="teacher, openvino", role="teacher engine", latency_ms=replace(model.latency_ms, p50=1.0)
    )
    assert best_row(replace(FOUND.results, rows=(engine, model))).name == "int8"
    assert best_row(replace(FOUND.results, rows=(engine,))).name == "teacher, openvino"


def test_engine_drift_from_an_export_is_marked_wherever_it_counts() -> None:
    row = replace(FOUND.results.rows[2], engine_drift_from="export")
    results = replace(FOUND.results, rows=(row,))
    limit = next(each for each in tables(results) if each.title.startswith("Limits"))
    assert [cell.endswith(", from export)") for cell in limit.lines[0][1:]] == [False] * 6 + [True] * 2
    assert "from its export, not measured here" in summarise(results)[2].detail
