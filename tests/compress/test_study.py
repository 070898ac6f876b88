"""``sccg-compress study``: what is made, what is kept, and where it goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Cli, Lab
from filelock import FileLock
from study_fakes import NEAR, TO_FP32, study

from sccg_bench.checks import AIMS
from sccg_bench.results import read_results, write_results
from sccg_compress import study_command
from sccg_compress.candidates import STUDIED
from sccg_compress.runs import LOCK
from sccg_runtime.errors import InputError
from sccg_teacher_student import views
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.networks.spec import PRESETS, student_spec


def test_every_student_and_seed_leaves_one_row_of_figures_and_all_make_one_table(
    run: Cli, lab: Lab, log: list[str]
) -> None:
    said = study(run, lab, "--student", "s2d-8x1", "--student", "teacher", "--seed", 0, "--seed", 1)
    assert said.code == 0, said
    assert log == [
        "distil mr2ct-labels-seed0",
        *("distil mr2ct-s2d-8x1-5steps-seed0", "export mr2ct-s2d-8x1-5steps-seed0"),
        f"export {lab.teacher.name}",
        "distil mr2ct-labels-seed1",
        *("distil mr2ct-s2d-8x1-5steps-seed1", "export mr2ct-s2d-8x1-5steps-seed1"),
        "bench mr2ct-s2d-8x1-5steps-seed0 teacher-openvino-int8.sccg mr2ct-s2d-8x1-5steps-seed1",
    ], "all are timed in turns"
    rows = {"mr2ct-s2d-8x1-5steps-seed0.json", "mr2ct-s2d-8x1-5steps-seed1.json", "mr2ct-teacher.json"}
    assert {path.name for path in Path("study/rows").iterdir()} == rows
    kept = {"case": "a", "slice": "1", "drift": NEAR, "engine_drift": TO_FP32}
    for path in Path("study/rows").iterdir():
        assert {str(row.per_slice) for row in read_results(path).rows if row.precision == "int8"} == {str((kept,))}
    names = [row.name for row in read_results(Path("study/study-mr2ct.json")).rows]
    engine = "int8 (teacher-openvino-int8.sccg)"
    assert names == ["teacher", "teacher, OpenVINO", engine, *(f"int8, s2d-8x1-5steps-seed{seed}" for seed in (0, 1))]
    told = Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    assert "int8, s2d-8x1-5steps-seed1" in told
    assert "| ≥60.0 | " in told, "a mean with slices that were cut off at 100 dB"
    students, others = told.index("## Students"), told.index("## Latency")
    assert students < told.index("| s2d-8x1-5steps-seed1 |") < others
    assert "patient by patient" not in told, "there is one"
    assert Path("study/study-mr2ct.svg").read_bytes().startswith(b"<?xml")
    assert said.out.splitlines()[-1].startswith("3 rows")


def test_it_goes_on_where_it_ended(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1")
    log.clear()
    said = study(run, lab, "--student", "s2d-8x1")
    assert log == []
    assert "is there already" in said.err
    shutil.rmtree("study/runs")
    study(run, lab, "--student", "s2d-8x1", "--student", "s2d-16x1")
    assert [line.split()[0] for line in log] == ["distil", "distil", "export", "bench"], (
        "rows do without their run folders"
    )
    assert len(read_results(Path("study/study-mr2ct.json")).rows) == 4
    log.clear()
    Path("study/rows/mr2ct-s2d-16x1-5steps-seed0.json").unlink()
    study(run, lab, "--student", "s2d-16x1")
    assert [line.split()[0] for line in log] == ["bench"], "what is trained and exported stays as it is"
    log.clear()
    Path("study/rows/mr2ct-s2d-16x1-5steps-seed0.json").unlink()
    Path("study/runs/mr2ct-s2d-16x1-5steps-seed0/student.safetensors").unlink()
    study(run, lab, "--student", "s2d-16x1")
    assert log[0] == "resume mr2ct-s2d-16x1-5steps-seed0"


def test_a_preset_is_held_against_its_aims(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1")
    assert "## Aims" not in Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    study(run, lab, "--student", "fast")
    told = Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    assert "| fast | 5steps-seed0 | " in told.split("## Aims")[1].split("##")[0]


def test_several_patients_stand_each_on_its_own_behind_the_table(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1")
    row = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json")
    found = read_results(row)
    patients = tuple({"case": case, "slices": 1, "drift": NEAR} for case in "ab")
    rows = tuple(replace(one, per_patient=patients) for one in found.rows)
    write_results(row, replace(found, rows=rows, provenance=found.provenance | {"cases": ["a", "b"]}))
    assert study(run, lab, "--student", "s2d-8x1").code == 0
    told = Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    alone = told.split("## Students, patient by patient")[1].split("##")[0]
    assert [f"| s2d-8x1-5steps-seed0 | {case} | 1 |" in alone for case in "ab"] == [True, True]


def test_rows_say_what_differs_from_the_usual_recipe(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1")
    log.clear()
    study(run, lab, "--student", "s2d-8x1", "--weight-wavelet", 0)
    study(run, lab, "--student", "s2d-8x1", "--views", 12)
    assert log == [
        *("distil mr2ct-s2d-8x1-5steps-wavelet0-seed0", "export mr2ct-s2d-8x1-5steps-wavelet0-seed0"),
        "bench mr2ct-s2d-8x1-5steps-wavelet0-seed0",
        *("distil mr2ct-labels-12views-seed0", "distil mr2ct-s2d-8x1-5steps-12views-seed0"),
        *("export mr2ct-s2d-8x1-5steps-12views-seed0", "bench mr2ct-s2d-8x1-5steps-12views-seed0"),
    ], "the same labels where only the loss differs"
    assert {path.stem for path in Path("study/rows").iterdir()} == {
        f"mr2ct-s2d-8x1-5steps{changed}-seed0" for changed in ("", "-wavelet0", "-12views")
    }
    log.clear()
    study(run, lab, "--student", "s2d-8x1", "--weight-adversarial", 0.01, "--weight-ssim", 0)
    assert log[-1] == "bench mr2ct-s2d-8x1-5steps-ssim0-adversarial0.01-seed0"
    log.clear()
    study(run, lab, "--student", "s2d-8x1", "--weight-decay", 0.01)
    assert log[0] == "distil mr2ct-s2d-8x1-5steps-decay0.01-seed0", "the same labels here, too"
    study(run, lab, "--weight-wavelet", -1).refused("loss weight wavelet")


def test_gains_over_a_row_stand_behind_the_table(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1", "--against", "s2d-8x1").refused(
        "no row is called s2d-8x1; there are s2d-8x1-"
    )
    assert log == [], "told before anything is trained"
    said = study(run, lab, "--student", "s2d-8x1", "--student", "s2d-16x1", "--against", "s2d-8x1-5steps")
    assert said.code == 0, said
    told = Path("study/study-mr2ct.md").read_text(encoding="utf-8")
    assert told.index("## Students") < told.index("## Gains") < told.index("| s2d-16x1-5steps | 0 |")


def test_what_is_wrong_is_told_before_anything_is_trained(run: Cli, lab: Lab, log: list[str]) -> None:
    study(run, lab, "--student", "s2d-8x1", "--student", "unet").refused("'unet' is not known")
    study(run, lab, "--minutes", 2).refused("--minutes or --steps")
    assert log == []
    study(run, lab, "--student", "s2d-8x1")
    path = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json")
    kept = read_results(path)
    path.write_text(replace(kept, provenance=kept.provenance | {"hashes": {"teacher": "0" * 64}}).to_json())
    study(run, lab, "--student", "s2d-8x1").refused("another teacher", "--out")


def test_runs_of_other_data_or_another_teacher_are_not_taken_for_this_study_s(
    run: Cli, lab: Lab, log: list[str], tmp_path: Path
) -> None:
    study(run, lab, "--student", "s2d-8x1")
    log.clear()
    shutil.copytree(lab.phantom, tmp_path / "more")
    study(run, lab, "--student", "s2d-8x1", "--unpaired", tmp_path / "more").refused("other data", "--out")
    shutil.rmtree("study/rows")  # as if the first study had been interrupted before its bench
    other = tmp_path / "other.safetensors"
    shutil.copy(lab.teacher, other)
    said = run("study", "--teacher", other, "--out", "study", "--steps", 5, "--student", "s2d-8x1")
    said.refused("another teacher", "--out")
    assert log == []


def test_a_student_that_cannot_be_trained_costs_its_own_row_alone(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study_command.new_run

    def new_run(config: DistillConfig, folder: Path) -> None:
        if config.student == "s2d-8x1-branch":
            raise InputError("both sides must be multiples of 16")
        whole(config, folder)

    monkeypatch.setattr(study_command, "new_run", new_run)
    said = study(run, lab, "--student", "s2d-8x1-branch", "--student", "s2d-8x1", "--against", "s2d-8x1-branch-5steps")
    said.refused("no row of mr2ct-s2d-8x1-branch-5steps-seed0", "multiples of 16")
    assert [path.stem for path in Path("study/rows").iterdir()] == ["mr2ct-s2d-8x1-5steps-seed0"]
    assert "s2d-8x1" in Path("study/study-mr2ct.md").read_text(encoding="utf-8")


def test_a_student_that_made_labels_in_its_own_minutes_has_no_row(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study_command.new_run

    def new_run(config: DistillConfig, folder: Path) -> None:
        whole(config, folder)
        if "labels" not in folder.name:
            (folder / "labels.json").write_text('{"views": 160}')

    monkeypatch.setattr(study_command, "new_run", new_run)
    study(run, lab, "--student", "s2d-8x1").refused("learned from 160 instead of 1024 views", "mr2ct-labels-seed0")
    assert not Path("study/rows").exists()


def test_rows_of_other_data_are_not_joined_by_new_ones(run: Cli, lab: Lab, log: list[str], tmp_path: Path) -> None:
    study(run, lab, "--student", "s2d-8x1")
    shutil.rmtree("study/runs")
    log.clear()
    shutil.copytree(lab.phantom, tmp_path / "more")
    said = study(run, lab, "--student", "s2d-8x1", "--seed", 1, "--unpaired", tmp_path / "more")
    said.refused("other data or options (unpaired, unpaired_cases)", "--out")
    assert log == []
    study(run, lab, "--student", "s2d-8x1", "--seed", 1)
    assert len(list(Path("study/rows").iterdir())) == 2


def test_rows_of_other_cases_under_the_same_names_are_not_joined_by_new_ones(
    run: Cli, lab: Lab, log: list[str], tmp_path: Path
) -> None:
    data, more = (Path(shutil.copytree(lab.phantom, tmp_path / name)) for name in ("data", "more"))
    options = ("--data", data, "--unpaired", more, "--student", "s2d-8x1")
    study(run, lab, *options)
    log.clear()
    shutil.rmtree(next(iter((more / "train").iterdir())))
    for _ in ("begun", "rows alone"):
        study(run, lab, *options, "--seed", 1).refused("unpaired_cases", "--out")
        shutil.rmtree("study/runs", ignore_errors=True)
    shutil.copytree(lab.phantom, more, dirs_exist_ok=True)
    first = next(iter((data / "train").iterdir()))
    first.rename(data / "val" / first.name)
    study(run, lab, *options, "--seed", 1).refused("(cases)", "--out")
    assert log == []


def test_rows_of_views_made_in_another_way_are_not_joined_by_new_ones(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study(run, lab, "--student", "s2d-8x1")
    monkeypatch.setattr(views, "RECIPE", views.RECIPE + 1)
    log.clear()
    study(run, lab, "--student", "s2d-8x1", "--seed", 1).refused("views_recipe", "--out")
    assert log == []
    row, begun = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json"), Path("study/runs/mr2ct.json")
    found, kept = read_results(row), json.loads(begun.read_bytes())
    for name in ("views_recipe", "cases", "unpaired_cases"):
        del found.provenance[study_command.CONDITIONS][name], kept[name]
    write_results(row, found)
    begun.write_text(json.dumps(kept), encoding="utf-8")
    assert study(run, lab, "--student", "s2d-8x1", "--seed", 1).code == 0, "earlier versions did not say it"
    assert json.loads(begun.read_bytes())["views_recipe"] == views.RECIPE
    for unsaid in ("unpaired", "data"):
        begun.write_text(json.dumps({name: value for name, value in kept.items() if name != unsaid}), encoding="utf-8")
        study(run, lab, "--student", "s2d-8x1", "--seed", 2).refused(f"was begun with another {unsaid}")


def test_a_preset_is_what_it_was_when_its_row_was_measured(
    run: Cli, lab: Lab, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(student: str, *asked: str) -> list[str]:
        monkeypatch.setattr(study_command, "PRESETS", {"fast": student})
        study(run, lab, "--student", "s2d-8x1", *asked)
        lines = Path("study/study-mr2ct.md").read_text(encoding="utf-8").splitlines()
        return sorted({line.split(" | ")[1] for line in lines if line.startswith("| fast | ")})

    assert told("s2d-8x1") == ["5steps-seed0"]
    assert told("s2d-16x1") == ["5steps-seed0"]
    row = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json")
    kept = read_results(row)
    del kept.provenance["presets"]
    write_results(row, kept)
    assert told("s2d-16x1") == [], "earlier versions did not say it: today's"
    assert told("s2d-16x1", "--student", "s2d-16x1", "--seed", "1") == ["5steps-seed1"], "rows do not agree: today's"


@pytest.mark.parametrize("conditions", [None, [], "data"])
def test_rows_whose_conditions_are_none_are_of_others(run: Cli, lab: Lab, log: list[str], conditions: object) -> None:
    study(run, lab, "--student", "s2d-8x1")
    row = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json")
    found = read_results(row)
    found.provenance[study_command.CONDITIONS] = conditions
    write_results(row, found)
    study(run, lab, "--student", "s2d-8x1").refused("other data or options (data, cases, unpaired")


def test_a_second_study_in_the_same_folder_is_refused(run: Cli, lab: Lab, log: list[str]) -> None:
    Path("study").mkdir()
    with FileLock(Path("study") / LOCK):
        study(run, lab, "--student", "s2d-8x1").refused("another process is at work in study")
    assert log == []


def test_the_default_list_has_the_presets_what_others_would_ship_and_six_of_ours() -> None:
    specs = [student_spec(name) for name in STUDIED]
    assert [spec.name for spec in specs] == list(STUDIED), "rows carry the names that were asked for"
    assert set(PRESETS.values()) <= set(STUDIED)
    assert set(PRESETS) == set(AIMS)
    assert {"resnet-16x9-in", "resnet-16x9-bn", "s2d-48x6-plain"} <= set(STUDIED)
    assert sum(spec.family == "s2d" and spec.standardise for spec in specs) >= 6


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_study_of_one_student_is_really_trained_and_measured(run: Cli, lab: Lab) -> None:
    said = run(
        "study", "--teacher", lab.teacher, "--out", "study", "--steps", 10, "--student", "s2d-8x1", "--views", 48
    )
    assert said.code == 0, said
    merged = read_results(Path("study/study-mr2ct.json"))
    assert merged.is_simulated
    assert {row.role for row in merged.rows} >= {"teacher", "control", "model"}
    row = merged.row("s2d-8x1, PyTorch, s2d-8x1-10steps-48views-seed0")
    assert row is not None
    assert row.latency_ms is not None
    assert (row.figure("drift", "to_teacher_psnr_head_db") or 0) > 5
    assert row.figure("quality", "hf_ratio") is not None


def test_a_teacher_that_was_trained_again_under_its_name_is_another_one(run: Cli, lab: Lab, log: list[str]) -> None:
    ours = replace(lab, teacher=Path(shutil.copy(lab.teacher, "teacher_mr2ct.safetensors")))
    study(run, ours, "--student", "s2d-8x1")
    shutil.rmtree("study/rows")  # as if the first study had been interrupted before its bench
    log.clear()
    kept = load_checkpoint(ours.teacher)
    assert kept.record is not None
    save_checkpoint(ours.teacher, kept.generator, kept.spec, replace(kept.record, simulated_data=False))
    study(run, ours, "--student", "s2d-8x1").refused("was begun with another teacher", "--out")
    assert log == []
    for content in ("{", "[]"):
        Path("study/runs/mr2ct.json").write_text(content)
        study(run, ours, "--student", "s2d-8x1").refused("mr2ct.json is damaged")
