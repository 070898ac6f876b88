"""Tables of README and docs come from the committed results, and a text that differs is noticed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sccg_bench.latency import Latency
from sccg_bench.results import Results, Row, not_measured_row, paper_row, write_results
from sccg_compress.pages.figures import DOCUMENTS, filled, main
from sccg_runtime.errors import InputError
from sccg_teacher_student.networks.spec import PRESETS

README = "# Title\n\n<!-- figures: phantom -->\n<!-- end of figures -->\n\nafter\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures"])
    row = Row(
        name="small|int8",
        precision="int8",
        size=(512, 512),
        latency_ms=Latency(p50=9.876, p90=None, p99=None, min=None, mean=None, n=64),
        speedup_vs_teacher=123.4,
        quality={"hf_ratio": 0.987},
        drift={"to_teacher_psnr_db": 30.04, "delta_psnr_db": -0.123},
        engine_drift={"engine_to_fp32_psnr_db": None},
        detail_against="teacher",
        counts={"slices": 24},
    )
    found = Results(
        machine={"cpu": "Abacus 3000", "physical_cores": 2},
        provenance={"cases": ["a", "b"], "simulated_data": True},
        direction="mr2ct",
        rows=(row, not_measured_row("on CUDA", "no CUDA"), paper_row()),
    )
    write_results(tmp_path / "results" / "phantom.json", found)
    return tmp_path / "results"


def test_a_block_becomes_the_table_of_its_result(results: Path) -> None:
    text = filled(README, results)
    assert "| small\\|int8 | int8 | 9.9 ms | 123 | 30.0 dB | 0.99 | -0.12 dB |  |" in text
    assert "| paper, RTX 3080 Ti |  | 2730.0 ms (cited, RTX 3080 Ti) |" in text
    assert "on CUDA" not in text
    assert "Abacus 3000, 2 cores; mr2ct; simulated data, patients: 2, slices: 24; queries per time: 64." in text
    assert text.startswith("# Title\n")
    assert text.endswith("<!-- end of figures -->\n\nafter\n")
    assert filled(text, results) == text, "filling again changes nothing"


def test_latency_of_another_size_is_not_put_under_512(results: Path) -> None:
    path = results / "phantom.json"
    small = path.read_text(encoding="utf-8").replace("512", "256")
    path.write_text(small, encoding="utf-8")
    with pytest.raises(InputError, match="not of 512x512"):
        filled(README, results)


def test_a_table_from_the_reference_shows_no_detail_figure(results: Path) -> None:
    path = results / "phantom.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"teacher"', '"reference"'), encoding="utf-8")
    assert "0.99" not in filled(README, results)


def test_a_study_becomes_the_table_of_its_engines(results: Path) -> None:
    path = results / "study" / "study-mr2ct.json"
    path.parent.mkdir()
    path.write_bytes((results / "phantom.json").read_bytes())
    text = filled("<!-- study: study/mr2ct -->\nold\n<!-- end of study -->\n", results)
    assert "| small\\|int8 | int8 | 9.88 | – | 123× |" in text
    assert "Measured by `sccg-compress study` on Abacus 3000, 2 cores; mr2ct; simulated data" in text
    assert "old" not in text


def test_presets_have_a_table_of_what_they_miss(results: Path) -> None:
    path = results / "study" / "study-mr2ct.json"
    path.parent.mkdir()
    near = {"to_teacher_psnr_db": 30.5}
    row = Row(name=f"int8, {PRESETS['balanced']}-8min-seed0", engine="openvino", drift=near)
    write_results(path, Results(machine={}, provenance={}, direction="mr2ct", rows=(row,)))
    text = filled(2 * "<!-- aims: study/mr2ct -->\n<!-- end of aims -->\n", results)
    assert text.count("| balanced | 8min-seed0 | to teacher, whole: dB | at least 31 | 30.500 | 0.500 | – |") == 2
    assert text.count("What presets are to keep and do not.") == 1


def test_slices_without_a_real_image_are_counted(results: Path) -> None:
    path = results / "study" / "study-mr2ct.json"
    path.parent.mkdir()
    before = Row(name="teacher", role="teacher", counts={"slices": 80})  # of an earlier version
    row = Row(name="int8, s2d-8x1-8min-seed0", engine="openvino", counts={"slices": 80, "no_reference": 63})
    provenance = {"cases": ["case04", "case33"]}
    write_results(path, Results(machine={}, provenance=provenance, direction="mr2ct", rows=(before, row)))
    text = filled("<!-- study: study/mr2ct -->\n<!-- end of study -->\n", results)
    assert "slices of unknown origin, patients: 2, slices: 80, without a real image to compare with: 63." in text


@pytest.mark.parametrize("alike", [False, True])
def test_rows_of_a_study_stand_without_the_names_of_their_runs_where_that_says_enough(
    results: Path, alike: bool
) -> None:
    runs = ("s2d-8x1-8min-seed0", "s2d-8x2-8min-seed0")
    names = ["s2d-8x1-openvino-int8", "s2d-8x1-openvino-int8" if alike else "s2d-8x2-openvino-int8"]
    rows = (
        paper_row(),
        *(Row(name=f"{name}, {run}", engine="openvino") for name, run in zip(names, runs, strict=True)),
    )
    provenance = {"cases": ["a"], "runs": list(runs), "conditions": {}}
    warning = f"far apart: {names[0]} (mr2ct-{runs[0]}) 50%"
    found = Results(machine={}, provenance=provenance, direction="mr2ct", rows=rows, warnings=(warning,))
    write_results(results / "phantom.json", found)
    lines = [line for line in filled(README, results).splitlines() if line.startswith("| ")][1:]
    shown = [f"{name}, {run}" for name, run in zip(names, runs, strict=True)] if alike else names
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [*shown, paper_row().name]
    told = filled(README, results)
    assert "Measured by `sccg-compress study`" in told
    assert ("s2d-8x1-openvino-int8 (mr2ct-s2d-8x1-8min-seed0) 50%" in told) is alike, "named as in the table"
    assert alike or "far apart: s2d-8x1-openvino-int8 50%" in told


def test_an_ablation_becomes_the_table_of_its_gains(results: Path) -> None:
    found = Results(
        machine={"cpu": "Abacus 3000", "physical_cores": 2},
        provenance={"cases": ["a"]},
        direction="mr2ct",
        rows=tuple(
            Row(name=f"student, PyTorch, {run}", engine="torch", drift={"to_teacher_psnr_head_db": near})
            for run, near in {"s2d-8x1-8min-seed0": 27.0, "s2d-8x1-8min-wavelet0.5-seed0": 26.5}.items()
        ),
    )
    write_results(results / "ablation" / "study-mr2ct.json", found)
    text = filled("<!-- gains: ablation/mr2ct over s2d-8x1-8min -->\nold\n<!-- end of gains -->\n", results)
    assert "| s2d-8x1-8min-wavelet0.5 | 0 | 26.50 | −0.50 | – | – | – |" in text
    assert "Measured by `sccg-compress study` on Abacus 3000" in text
    assert "old" not in text
    assert filled(text, results) == text
    with pytest.raises(InputError, match=r"no row is called s2d-8x1-30min; there are s2d-8x1-8min, "):
        filled(text.replace("over s2d-8x1-8min", "over s2d-8x1-30min"), results)
    for block in ("gains: ablation/mr2ct", "plan: plan over s2d-8x1-8min"):
        with pytest.raises(InputError, match="only gains are held over a row"):
            filled(f"<!-- {block} -->\nold\n<!-- end of {block.split(':')[0]} -->\n", results)


def test_a_plan_becomes_the_table_of_its_candidates(results: Path) -> None:
    text = "<!-- plan: plan -->\n<!-- end of plan -->\n"
    with pytest.raises(InputError, match=r"plan\.json: cannot be read as a plan"):
        filled(text, results)
    one = {"name": "s2d-8x1", "control": False, "parameters": 1234, "gmac": 0.5, "p50_ms": 2.5, "fits": True}
    untimed = {**one, "name": "s2d-8x2", "p50_ms": None, "fits": False}
    others = [untimed, {**one, "name": "resnet", "control": True}]
    setting = {"cpu": "Abacus 3000", "threads": 2, "target": "openvino"}
    values = {"setting": setting, "budget_ms": 3.0, "margin": 0.1, "chosen": "s2d-8x1", "warnings": ["busy"]}
    path = results / "plan.json"
    path.write_text(json.dumps(values | {"candidates": [others[0], one, others[1]]}), encoding="utf-8")
    lines = filled(text, results).splitlines()
    assert lines[3:6] == [
        "| s2d-8x1 | 1,234 | 0.50 | 2.50 | yes |",
        "| resnet | 1,234 | 0.50 | 2.50 | control |",
        "| s2d-8x2 | 1,234 | 0.50 |  | – |",
    ]
    assert lines[7].endswith("Abacus 3000, 2 threads; INT8, openvino; 3 ms, 10% to spare: s2d-8x1. Warning: busy.")
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as a plan"):
        filled(text, results)


@pytest.mark.usefixtures("results")
def test_check_fails_until_the_readme_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("docs").mkdir()
    for document in DOCUMENTS:
        document.write_text(README, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["figures", "--check"])
    with pytest.raises(SystemExit, match="make figures"):
        main()
    assert DOCUMENTS[0].read_text(encoding="utf-8") == README, "checking changes nothing"
    monkeypatch.setattr(sys, "argv", ["figures"])
    main()
    monkeypatch.setattr(sys, "argv", ["figures", "--check"])
    main()


def test_a_missing_result_or_readme_is_one_line(results: Path) -> None:
    with pytest.raises(SystemExit, match=r"README\.md"):
        main()
    (results / "phantom.json").unlink()
    with pytest.raises(InputError, match=r"phantom\.json"):
        filled(README, results)
    Path("README.md").write_text(README, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^error: .*phantom\.json: cannot be read"):
        main()
