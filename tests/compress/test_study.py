"""``sccg-compress study``: what is made, what is kept, and where it goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, Lab
from filelock import FileLock

from sccg_bench.checks import AIMS
from sccg_bench.latency import summarise_blocks
from sccg_bench.results import Results, Row, read_results, write_results
from sccg_bench.run import BenchResult
from sccg_compress import study_command
from sccg_compress.candidates import STUDIED
from sccg_compress.runs import LOCK
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import sha256
from sccg_teacher_student import views
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.networks.spec import PRESETS, student_spec

NEAR = {"to_teacher_psnr_db": 30.0, "to_teacher_psnr_head_db": 25.0}
TO_FP32 = {"engine_to_fp32_psnr_db": 60.0, "engine_to_fp32_psnr_head_db": 100.0}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> list[str]:
    """Distil, export and bench leave what they leave, at once; the list says what was done."""
    done: list[str] = []

    def new_run(config: DistillConfig, folder: Path) -> None:
        done.append(f"distil {folder.name}")
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json())
        (folder / "labels.json").write_text(json.dumps({"views": min(config.views or 0, 2048)}))
        (folder / "student.safetensors").touch()

    def resume_run(folder: Path) -> None:
        done.append(f"resume {folder.name}")
        (folder / "student.safetensors").touch()

    def export_model(model: Path, *, out: Path, target: str, **_: Any) -> None:
        done.append(f"export {model.name}{'' if target == 'openvino' else f' to {target}'}")
        if "8x2" in model.name:
            raise RefusedError("drift 30.0 dB")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()

    def run_models(models: list[Path], *, teacher: Path, direction: str, **_: Any) -> BenchResult:
        done.append(f"bench {' '.join(path.name for path in models)}")
        rows = [
            Row(name="teacher", role="teacher", latency_ms=summarise_blocks([[200.0 + len(done)]])),
            Row(name="teacher, OpenVINO", role="teacher engine", engine="openvino", precision="fp32"),
        ]
        for number, path in enumerate(models):
            for bundle in [path] if path.suffix == ".sccg" else sorted(path.glob("*.sccg")):
                name, engine = ("ort", "onnxruntime") if "-ort-" in bundle.name else ("int8", "openvino")
                rows.append(
                    Row(
                        name=name if len(models) == 1 else f"{name} ({path.name})",
                        role="teacher engine" if path.suffix == ".sccg" else "model",
                        engine=engine,
                        precision="int8",
                        latency_ms=summarise_blocks([[2.0 + len(done) + number]]),
                        drift=NEAR | {"to_teacher_psnr_db": 20.0 + len(done) + number},
                        engine_drift=TO_FP32 | {"engine_to_fp32_psnr_head_db": 60.0},
                        per_slice=(
                            {"case": "a", "slice": "1", "quality": {"ssim": 0.5}, "drift": NEAR | {"other": 1.0}}
                            | {"engine_drift": TO_FP32 | {"other": 1.0}},
                        ),
                    )
                )
        found = Results(
            machine={"cpu": "one"},
            provenance={"cases": ["a"], "hashes": {"teacher": sha256(teacher)}},
            rows=tuple(rows),
            direction="mr2ct",
        )
        return BenchResult(found, (), {})

    for function in (new_run, resume_run, export_model, run_models):
        monkeypatch.setattr(study_command, function.__name__, function)
    return done


def study(run: Cli, lab: Lab, *arguments: object) -> Any:
    return run("study", "--teacher", lab.teacher, "--out", "study", "--steps", 5, *arguments)


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


def test_a_refused_engine_is_told_and_the_study_goes_on(run: Cli, lab: Lab, log: list[str]) -> None:
    said = study(run, lab, "--student", "s2d-8x2", "--student", "s2d-8x1")
    assert said.code == 0, said
    assert log[3] == "distil mr2ct-s2d-8x1-5steps-seed0"
    assert log[-1] == "bench mr2ct-s2d-8x2-5steps-seed0 mr2ct-s2d-8x1-5steps-seed0"
    row = read_results(Path("study/rows/mr2ct-s2d-8x2-5steps-seed0.json"))
    assert row.warnings == ("no INT8 engine for openvino: drift 30.0 dB",)
    assert "drift 30.0 dB" in Path("study/study-mr2ct.md").read_text(encoding="utf-8")


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
    (tmp_path / "more").mkdir()
    study(run, lab, "--student", "s2d-8x1", "--unpaired", tmp_path / "more").refused("other data", "--out")
    shutil.rmtree("study/rows")  # as if the first study had been interrupted before its bench
    other = tmp_path / "other.safetensors"
    shutil.copy(lab.teacher, other)
    said = run("study", "--teacher", other, "--out", "study", "--steps", 5, "--student", "s2d-8x1")
    said.refused("another teacher", "--out")
    assert log == []


def test_fewer_views_than_asked_for_are_refused(run: Cli, lab: Lab, log: list[str]) -> None:
    said = study(run, lab, "--student", "s2d-8x1", "--student", "s2d-16x1", "--views", 4096)
    said.refused("2048 instead of 4096 views")
    assert log == ["distil mr2ct-labels-4096views-seed0"], "told before any student is trained"


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
    (tmp_path / "more").mkdir()
    said = study(run, lab, "--student", "s2d-8x1", "--seed", 1, "--unpaired", tmp_path / "more")
    said.refused("other data or options (unpaired)", "--out")
    assert log == []
    study(run, lab, "--student", "s2d-8x1", "--seed", 1)
    assert len(list(Path("study/rows").iterdir())) == 2


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
    del found.provenance[study_command.CONDITIONS]["views_recipe"], kept["views_recipe"]
    write_results(row, found)
    begun.write_text(json.dumps(kept), encoding="utf-8")
    assert study(run, lab, "--student", "s2d-8x1", "--seed", 1).code == 0, "earlier versions did not say it"
    assert json.loads(begun.read_bytes())["views_recipe"] == views.RECIPE
    for unsaid in ("unpaired", "data"):
        begun.write_text(json.dumps({name: value for name, value in kept.items() if name != unsaid}), encoding="utf-8")
        study(run, lab, "--student", "s2d-8x1", "--seed", 2).refused(f"was begun with another {unsaid}")


@pytest.mark.parametrize("conditions", [None, [], "data"])
def test_rows_whose_conditions_are_none_are_of_others(run: Cli, lab: Lab, log: list[str], conditions: object) -> None:
    study(run, lab, "--student", "s2d-8x1")
    row = Path("study/rows/mr2ct-s2d-8x1-5steps-seed0.json")
    found = read_results(row)
    found.provenance[study_command.CONDITIONS] = conditions
    write_results(row, found)
    study(run, lab, "--student", "s2d-8x1").refused("other data or options (data, unpaired")


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
