"""``sccg-compress bench``: which rows there are, and what is claimed of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Cli, Lab
from PIL import Image

from sccg_bench.run import CONTROLS
from sccg_compress.bench_command import TEACHER, TEACHER_OPENVINO, _ended_by_sigterm, _runnables, _series
from sccg_compress.known import learn
from sccg_compress.models import find_model
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import open_data

STUDENT = "s2d-16x2, PyTorch"
PAPER = "paper, RTX 3080 Ti"


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    values = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert values["schema"] == "sccg-bench/1"
    return {row["name"]: row for row in values["rows"]}


def replace_student(lab: Lab) -> None:
    """Another student than the one that the bundles were made from."""
    path = lab.run / "student.safetensors"
    kept = load_checkpoint(path)
    assert kept.record is not None
    path.unlink()
    next(iter(kept.generator.parameters())).data.mul_(1.01)
    save_checkpoint(path, kept.generator, kept.spec, kept.record)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_of_the_newest_run_measures_teacher_student_and_every_bundle(run: Cli, lab: Lab, bundles: Path) -> None:
    os.link(bundles / "small.sccg", lab.run / "small.sccg")
    (lab.run / "broken.sccg").write_bytes(b"not a bundle")
    data = with_a_lesion(lab)
    said = run("bench", "--size", "64x64", "--threads", 1, "--data", data, "--json", "-")
    assert said.code == 0, said
    rows = rows_of(lab.run / "report" / "result.json")
    cuda = [f"{name} on CUDA{half}" for name in (TEACHER, STUDENT) for half in ("", ", FP16")]
    engines = ["student, TensorRT-RTX", "student, TensorRT"]
    measured = {TEACHER, TEACHER_OPENVINO, *CONTROLS, STUDENT, "small"}
    assert set(rows) == {*measured, "broken", PAPER, *cuda, *engines}
    for name in (TEACHER, TEACHER_OPENVINO, STUDENT, "small"):
        assert rows[name]["status"] == "measured", rows[name]
        assert rows[name]["latency_ms"]["p50"] > 0
        assert rows[name]["size"] == [64, 64]
        assert rows[name]["counts"]["slices"] == 4
    assert (rows[PAPER]["status"], rows[PAPER]["latency_ms"]["p50"]) == ("cited", 2730)
    assert rows[PAPER]["speedup_vs_paper"] is None
    if not torch.cuda.is_available():
        for name in cuda:
            assert (rows[name]["status"], rows[name]["latency_ms"]) == ("not measured", None)
            assert "CUDA" in rows[name]["note"]
    for name in engines:
        assert (rows[name]["status"], rows[name]["latency_ms"]) == ("not measured", None)
        assert "bundle was given" in rows[name]["note"]
    assert rows["broken"]["status"] == "failed"
    assert "broken.sccg is not a bundle" in rows["broken"]["note"]
    small = rows["small"]
    assert (small["engine"], small["precision"]) == ("openvino", "int8")
    assert small["precision_ran"]["int8"] > 0
    assert small["engine_drift_from"] == "this run"
    assert small["engine_drift"]["engine_to_fp32_psnr_db"] > 40
    assert small["speedup_vs_teacher"] > 0
    assert small["throughput"]["slices_per_s"] > 0
    assert small["series"]["slices"] == 4
    assert small["series"]["cold_start_ms"] > small["series"]["end_to_end_ms"] > 0
    assert rows[STUDENT]["series"] is None, "only bundles are what a clinic runs"
    assert small["quality"]["mae_bone_hu"] > small["quality"]["mae_soft_hu"] > 0
    assert small["quality"]["mae_lesion_u8"] > 0
    assert small["counts"]["lesion"] == 1
    assert rows[TEACHER_OPENVINO]["engine_drift"]["engine_to_fp32_psnr_db"] > 60
    for name in CONTROLS:
        assert rows[name]["quality"]["hf_ratio"] < 0.8
    assert rows[STUDENT]["drift"]["to_teacher_psnr_db"] > 10
    told = json.loads(said.out)
    assert (told["provenance"]["simulated_data"], told["provenance"]["split"]) == (True, "test")
    assert told["provenance"]["series"] == f"{told['provenance']['cases'][0]}/mr"
    assert told["provenance"]["cases"] == [path.name for path in (data / "test").iterdir()]
    assert set(told["provenance"]["hashes"]) == {
        "teacher_mr2ct.safetensors",
        "student.safetensors",
        "small.sccg",
        "broken.sccg",
    }
    page = (lab.run / "report" / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    report = (lab.run / "report" / "report.md").read_text(encoding="utf-8")
    assert "errors beyond the data's window, -1024 to 2000 HU, are not seen" in report
    models = (lab.run / "report" / "models.csv").read_text(encoding="utf-8")
    assert len(models.splitlines()) == 1 + len(rows)
    slices = (lab.run / "report" / "slices.csv").read_text(encoding="utf-8")
    assert len(slices.splitlines()) == 1 + 4 * 6  # teacher, its controls, its OpenVINO form, student, bundle
    assert small["float_layers"], "the stem of an INT8 student stays in float"


def with_a_lesion(lab: Lab) -> Path:
    """The phantom's test case, with a lesion drawn in its second slice."""
    data = lab.root / "with lesion"
    shutil.copytree(lab.phantom / "test", data / "test")
    shutil.copy(lab.phantom / "sccg.toml", data)
    case = next((data / "test").iterdir())
    (case / "lesion").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[28:36, 30:40] = 1
    Image.fromarray(mask).save(case / "lesion" / f"{open_data(data).slices(case.name)[1]}.png")
    return data


@pytest.mark.usefixtures("brief")
def test_a_checkpoint_that_cannot_be_read_keeps_the_others(run: Cli, lab: Lab) -> None:
    """Slices of MR alone, of which there is one: latency and drift to the teacher are what is left."""
    data = lab.root / "one slice"
    mr = next((lab.phantom / "test").iterdir()) / "mr"
    (data / "case" / "mr").mkdir(parents=True)
    shutil.copy(sorted(mr.iterdir())[1], data / "case" / "mr")
    shutil.copy(lab.phantom / "sccg.toml", data)
    spoilt = lab.root / "spoilt.pth"
    spoilt.write_bytes(b"not a checkpoint")
    said = run("bench", lab.run, spoilt, "--data", data, "--size", 64, "--threads", 1, "--device", "cpu")
    assert said.code == 0, said
    rows = rows_of(lab.run / "report" / "result.json")
    assert rows["spoilt, PyTorch"]["status"] == "failed"
    assert "spoilt.pth" in rows["spoilt, PyTorch"]["note"]
    student = rows[f"{STUDENT} (first)"]
    assert student["latency_ms"]["p50"] > 0
    assert student["counts"]["slices"] == 1
    assert student["drift"]["to_teacher_psnr_db"] > 10
    assert (student["drift"]["delta_psnr_db"], student["quality"]["psnr_db"]) == (None, None)
    assert len(student["per_slice"]) == 1
    assert student["landmarks"] == dict.fromkeys(("worst", "spot"), f"case/{student['per_slice'][0]['slice']}")


def test_nothing_that_can_be_read_is_one_line(run: Cli, lab: Lab) -> None:
    spoilt = lab.root / "spoilt.pth"
    spoilt.write_bytes(b"not a checkpoint")
    run("bench", spoilt, "--data", lab.phantom).refused("spoilt.pth")
    run("bench", "--teacher", "gone.pt").refused("no checkpoint at gone.pt")


def test_sigterm_ends_the_command_in_order() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, _ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_teacher_that_cannot_be_read_is_a_row_and_no_drift(lab: Lab) -> None:
    spoilt = lab.root / "spoilt.pth"
    spoilt.write_bytes(b"not a checkpoint")
    models = [find_model(lab.run)]
    known = learn(models, spoilt, None)
    rows, fp32_of = _runnables(models, known, "cpu")
    assert [row.name for row in rows] == [TEACHER, STUDENT]
    assert known.teacher is None
    assert fp32_of == {}


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_bundle_alone_outside_any_run_is_measured_without_a_teacher(
    run: Cli, lab: Lab, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = tmp_path / "at the clinic.sccg"
    shutil.copy(bundles / "small.sccg", alone)
    out = tmp_path / "out.json"
    monkeypatch.setattr("sccg_compress.bench_command.SERIES_SLICES", 2)
    monkeypatch.setattr("sccg_compress.bench_command.SERIES_PX", 64)
    command = ("bench", alone.name, "--data", pngs_of(lab, tmp_path), "--size", 64, "--threads", 1, "--json", out)
    said = run(*command, "--device", "cpu")
    assert said.code == 0, said
    rows = rows_of(out)
    assert set(rows) == {"at the clinic", PAPER}
    assert json.loads(out.read_text(encoding="utf-8"))["provenance"]["split"] == "all"
    row = rows["at the clinic"]
    assert row["drift"] is None
    assert row["engine_drift_from"] == "export", "no FP32 network was run beside it"
    assert row["quality"]["psnr_db"] > 10
    assert row["series"]["slices"] == 2, "PNG slices are no series: a phantom stands in"
    assert (tmp_path / "report" / "report.html").is_file()
    assert "no --teacher" in said.err
    assert "series of the phantom, 2 slices of 64x64" in said.err
    assert json.loads(out.read_text(encoding="utf-8"))["provenance"]["series"] == "phantom, 2 slices of 64x64"


def pngs_of(lab: Lab, folder: Path) -> Path:
    """The slices of the phantom's test case as PNG."""
    source = open_data(lab.phantom)
    for pair in source.pairs(source.splits["test"]):
        for name, image in (("mr", pair.mr), ("ct", pair.ct)):
            place = folder / "png" / pair.case / name
            place.mkdir(parents=True, exist_ok=True)
            grey = np.rint((image[0] + 1) * 127.5).astype(np.uint8)
            Image.fromarray(grey).save(place / f"{pair.slice}.png")
    return folder / "png"


@pytest.mark.usefixtures("brief")
def test_when_nothing_could_be_measured_it_does_not_end_as_done(
    run: Cli, lab: Lab, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = lab.root / "spoiled.sccg"
    shutil.copy(bundles / "small.sccg", spoiled)
    monkeypatch.setattr(
        "sccg_export.runnables.BundleRunnable.__reduce__", lambda self: (BrokenRunnable, (self.name,)), raising=False
    )
    said = run("bench", spoiled, "--data", lab.phantom, "--size", 64, "--device", "cpu")
    said.refused("no model could be measured")


@pytest.mark.skipif(torch.cuda.is_available(), reason="an NVIDIA GPU is here")
@pytest.mark.usefixtures("brief")
def test_an_engine_for_a_gpu_that_is_not_here_is_a_row_that_says_so(run: Cli, lab: Lab) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed: pip install '.[rtx]'")
    assert run("export", "--target", "tensorrt-rtx").code == 0
    said = run("bench", lab.run, "--size", 64, "--threads", 1, "--device", "cpu")
    assert said.code == 0, said
    row = rows_of(lab.run / "report" / "result.json")["s2d-16x2-tensorrt-rtx-fp32"]
    assert (row["status"], row["latency_ms"]) == ("not measured", None)
    assert "needs an NVIDIA GPU" in row["note"]
    assert "not measured" in (lab.run / "report" / "report.md").read_text(encoding="utf-8")


class BrokenRunnable:
    """Fails wherever it is opened."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_a_bundle_of_another_student_is_not_compared_with_this_one(lab: Lab, bundles: Path) -> None:
    os.link(bundles / "small.sccg", lab.run / "small.sccg")
    models = [find_model(lab.run)]
    rows, fp32_of = _runnables(models, learn(models, None, None), "cpu")
    assert [row.name for row in rows] == [STUDENT, "small"]
    assert fp32_of == {"small": STUDENT}
    replace_student(lab)
    models = [find_model(lab.run)]
    rows, fp32_of = _runnables(models, learn(models, None, None), "cpu")
    assert [row.name for row in rows] == [STUDENT, "small"]
    assert fp32_of == {}


def test_a_bundle_in_its_run_brings_its_fp32_network_along(lab: Lab, bundles: Path) -> None:
    os.link(bundles / "small.sccg", lab.run / "small.sccg")
    model = find_model(Path("runs/first/small.sccg"))
    assert (model.checkpoint, model.run_teacher()) == (Path("runs/first/student.safetensors"), lab.teacher)


def test_engine_drift_does_not_depend_on_the_order_of_models(lab: Lab, bundles: Path) -> None:
    models = [find_model(path) for path in (bundles / "small.sccg", lab.run)]
    assert _runnables(models, learn(models, None, None), "cpu")[1] == {"small": f"{STUDENT} (first)"}


def test_a_bundle_that_is_still_being_written_is_none(lab: Lab) -> None:
    (lab.run / ".small-1a2b.sccg").touch()
    assert find_model(lab.run).bundles == ()


@pytest.mark.usefixtures("brief")
def test_what_would_lose_the_figures_is_told_before_measuring(run: Cli, lab: Lab) -> None:
    run("bench", "--json", lab.root).refused("--json", "is a folder")
    run("bench", "--report", lab.run / "student.safetensors").refused("is a file", "--report")
    said = run("bench", "--report", lab.run / "student.safetensors" / "report")
    said.refused("report: ")
    assert "starting" not in said.err


@pytest.mark.usefixtures("brief", "lab")
@pytest.mark.skipif(not Path("/sys").is_dir(), reason="no folder here that takes no files of root's")
def test_a_report_folder_that_takes_no_files_is_told_before_measuring(run: Cli) -> None:
    said = run("bench", "--report", "/sys")
    said.refused("/sys takes no files", "--report")
    assert "starting" not in said.err


@pytest.mark.usefixtures("brief")
def test_figures_are_kept_whatever_the_terminal_cannot_show(
    run: Cli, lab: Lab, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_results: object) -> None:
        raise UnicodeEncodeError("cp1252", "Δ", 0, 1, "no such letter")

    spoiled = lab.root / "spoiled.sccg"
    shutil.copy(bundles / "small.sccg", spoiled)
    reduced = lambda self: (BrokenRunnable, (self.name,))  # noqa: E731
    monkeypatch.setattr("sccg_export.runnables.BundleRunnable.__reduce__", reduced, raising=False)
    monkeypatch.setattr("sccg_bench.report.terminal.show", fails)
    with pytest.raises(UnicodeEncodeError):
        run("bench", spoiled, "--data", lab.phantom, "--size", 64, "--device", "cpu", "--json", "out.json")
    assert "spoiled" in rows_of(lab.root / "report" / "result.json")
    assert "spoiled" in rows_of(lab.root / "out.json")
    assert {path.name for path in (lab.root / "report").iterdir()} > {"report.html", "report.md", "models.csv"}


@pytest.mark.usefixtures("brief")
def test_a_slice_that_no_network_takes_is_told_before_measuring(run: Cli, lab: Lab) -> None:
    for name, side in (("000", 64), ("001", 50)):
        path = lab.root / "odd" / "one" / "mr" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(side, dtype=np.uint8) * 200).save(path)
    said = run("bench", "--data", lab.root / "odd", "--size", 64, "--device", "cpu")
    said.refused("one/001 50x50: both sides must be multiples of 4")
    assert "starting" not in said.err


def test_a_series_is_that_of_the_first_case_that_has_one(lab: Lab, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(lab.phantom / "train", data)
    first, second = sorted(path.name for path in data.iterdir())[:2]
    for path in (data / first / "mr").iterdir():
        path.unlink()
    source = open_data(lab.phantom)
    moved = replace(source, folders={case: data / case for case in (first, second)})
    assert _series(moved, (first, second), "mr2ct", tmp_path) == (data / second / "mr", f"{second}/mr")


def test_every_row_has_a_name_of_its_own(lab: Lab, bundles: Path) -> None:
    """Two runs with one folder name, bundles with one file name, a model given twice."""
    other = lab.root / "elsewhere" / "first"
    shutil.copytree(lab.run, other)
    replace_student(lab)
    for folder in (lab.run, other, lab.root / "a", lab.root / "b"):
        folder.mkdir(exist_ok=True)
        os.link(bundles / "small.sccg", folder / "small.sccg")
    paths = [lab.run, other, lab.run / "small.sccg", lab.root / "a" / "small.sccg", lab.root / "b" / "small.sccg"]
    models = [find_model(path) for path in paths]
    known = learn(models, lab.teacher, None)
    names = [row.name for row in _runnables(models, known, "cpu")[0]]
    assert len(set(names)) == len(names) == 8, names
    hashes = known.hashes()
    assert len(set(hashes.values())) == len(hashes) == 4, "the bundles are the same file, the students are not"
    assert {"student.safetensors", "student.safetensors (first)", "small.sccg"} < set(hashes)


def test_the_teacher_as_a_model_is_one_row(lab: Lab) -> None:
    models = [find_model(lab.teacher)]
    rows, fp32_of = _runnables(models, learn(models, lab.teacher, None), "cpu")
    assert [row.name for row in rows] == [TEACHER, TEACHER_OPENVINO]
    assert fp32_of == {TEACHER_OPENVINO: TEACHER}


def test_rows_on_a_gpu_belong_to_their_network_on_the_cpu(lab: Lab) -> None:
    models = [find_model(lab.run)]
    fp32_of = _runnables(models, learn(models, lab.teacher, None), "auto")[1]
    on_gpu = {f"{name} on CUDA{half}": name for name in (TEACHER, STUDENT) for half in ("", ", FP16")}
    assert fp32_of == {TEACHER_OPENVINO: TEACHER} | on_gpu
