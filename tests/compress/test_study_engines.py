"""Engines of a study's students and of its teacher: made, refused, missing, or not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, Lab
from study_fakes import study

from sccg_bench.results import read_results
from sccg_bench.run import BenchResult
from sccg_compress import study_command
from sccg_runtime.errors import RefusedError
from sccg_teacher_student.distill_config import DistillConfig


def test_engines_of_other_targets_stand_beside(run: Cli, lab: Lab, log: list[str]) -> None:
    both = ("--target", "openvino", "--target", "ort")
    study(run, lab, "--student", "s2d-8x1", "--student", "teacher", *both)
    point = "mr2ct-s2d-8x1-5steps-seed0"
    assert log[2:] == [
        *(f"export {point}", f"export {point} to ort"),
        *(f"export {lab.teacher.name}", f"export {lab.teacher.name} to ort"),
        f"bench {point} teacher-openvino-int8.sccg teacher-ort-int8.sccg",
    ]
    bundles = sorted(path.name for path in Path("study/runs", point).glob("*.sccg"))
    assert bundles == ["s2d-8x1-openvino-int8.sccg", "s2d-8x1-ort-int8.sccg"]
    told = Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    for name in ("s2d-8x1-5steps-seed0, openvino", "s2d-8x1-5steps-seed0, onnxruntime", "ort (teacher-ort-int8.sccg)"):
        assert f"| {name} | int8 | " in told
    log.clear()
    assert "without" not in study(run, lab, "--student", "s2d-8x1", "--student", "teacher", *both).err
    study(run, lab, "--student", "s2d-16x1", "--target", "tensorrt").refused("--target tensorrt", "openvino or ort")
    study(run, lab, "--student", "s2d-16x1", "--target", "coreml").refused("'coreml' is none of")
    assert log == [], "told before anything is trained"


def test_a_row_that_lacks_an_engine_says_so(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "teacher", "--student", "s2d-8x1", "--student", "s2d-8x2", "--target", "ort")
    assert "| s2d-8x1-5steps-seed0, onnxruntime | " in Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    log.clear()
    said = study(run, lab, "--student", "teacher", "--student", "s2d-8x1", "--student", "s2d-8x2", "--target", "ort")
    assert "without" not in said.err, "an engine that was refused is not made by asking again"
    said = study(run, lab, "--student", "teacher", "--student", "s2d-8x1")
    for name in ("teacher", "s2d-8x1-5steps-seed0"):
        assert f"mr2ct-{name}.json is there already, without openvino: delete it and name every --target" in said.err
    assert log == []
    Path("study/rows/mr2ct-teacher.json").unlink()
    study(run, lab, "--student", "teacher")
    assert log[-1] == "bench teacher-openvino-int8.sccg teacher-ort-int8.sccg", "what was made before is not lost"


def test_the_teacher_s_engine_that_fails_costs_no_student_its_row(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study_command.run_models

    def killed(*arguments: Any, **options: Any) -> BenchResult:
        made = whole(*arguments, **options)
        rows = [
            replace(row, status="failed", note="killed") if row.name == "int8 (teacher-openvino-int8.sccg)" else row
            for row in made.results.rows
        ]
        return replace(made, results=replace(made.results, rows=tuple(rows)))

    monkeypatch.setattr(study_command, "run_models", killed)
    study(run, lab, "--student", "teacher", "--student", "s2d-8x1").refused("no row of mr2ct-teacher: ", "killed")
    assert [path.stem for path in Path("study/rows").iterdir()] == ["mr2ct-s2d-8x1-5steps-seed0"]


def test_a_refused_engine_is_told_and_the_study_goes_on(run: Cli, lab: Lab, log: list[str]) -> None:
    said = study(run, lab, "--student", "s2d-8x2", "--student", "s2d-8x1")
    assert said.code == 0, said
    assert log[3] == "distil mr2ct-s2d-8x1-5steps-seed0"
    assert log[-1] == "bench mr2ct-s2d-8x2-5steps-seed0 mr2ct-s2d-8x1-5steps-seed0"
    row = read_results(Path("study/rows/mr2ct-s2d-8x2-5steps-seed0.json"))
    assert row.warnings == ("no INT8 engine for openvino: drift 30.0 dB",)
    assert "drift 30.0 dB" in Path("study/study-mr2ct.md").read_text(encoding="utf-8")


def test_a_student_that_could_not_be_measured_has_no_row_and_is_tried_again(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study_command.run_models

    def killed(*arguments: Any, **options: Any) -> BenchResult:
        made = whole(*arguments, **options)
        last = replace(made.results.rows[-1], status="failed", note="killed by SIGKILL")
        return replace(made, results=replace(made.results, rows=(*made.results.rows[:-1], last)))

    monkeypatch.setattr(study_command, "run_models", killed)
    said = study(run, lab, "--student", "s2d-8x1", "--student", "s2d-16x1")
    said.refused("no row of mr2ct-s2d-16x1-5steps-seed0: int8", "failed: killed by SIGKILL")
    assert [path.stem for path in Path("study/rows").iterdir()] == ["mr2ct-s2d-8x1-5steps-seed0"]
    monkeypatch.setattr(study_command, "run_models", whole)
    study(run, lab, "--student", "s2d-8x1", "--student", "s2d-16x1")
    assert log[-1] == "bench mr2ct-s2d-16x1-5steps-seed0"
    assert len(list(Path("study/rows").iterdir())) == 2


def test_an_engine_that_a_kill_left_unfinished_is_not_measured(run: Cli, lab: Lab, log: list[str]) -> None:
    folder = Path("study/runs/mr2ct-teacher")
    folder.mkdir(parents=True)
    (folder / ".teacher-openvino-int8-abcd.sccg").touch()
    study(run, lab, "--student", "teacher")
    assert log[-1] == "bench teacher-openvino-int8.sccg"


@pytest.mark.parametrize("seed", [0, 1], ids=["first", "labels of another seed"])
@pytest.mark.parametrize("error", [RefusedError("view 7 is not finite"), RuntimeError("out of memory")])
def test_what_fails_for_one_student_costs_no_other_its_row(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception, seed: int
) -> None:
    whole = study_command.new_run

    def failing(config: DistillConfig, folder: Path) -> None:
        if ("labels" in folder.name and config.seed == 1) if seed else config.student == "s2d-8x1":
            raise error
        whole(config, folder)

    monkeypatch.setattr(study_command, "new_run", failing)
    asked = ("--student", "s2d-8x1", "--student", "s2d-16x1", *(("--seed", 0, "--seed", 1) if seed else ()))
    study(run, lab, *asked).refused("no row of mr2ct-s2d-8x1", str(error))
    left = [path.stem.removeprefix("mr2ct-") for path in sorted(Path("study/rows").iterdir())]
    both = ["s2d-16x1-5steps-seed0", "s2d-8x1-5steps-seed0"]
    assert left == (both if seed else both[:1])
