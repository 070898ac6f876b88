"""The short forms as README has them, and a run that is interrupted and goes on."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Cli, Lab
from PIL import Image

from sccg_bench.results import read_results
from sccg_compress.runs import latest_run
from sccg_runtime.bundle import read_bundle
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import load_checkpoint

SMALL = ("--student", "s2d-8x1", "--views", "8", "--batch", "2", "--device", "cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_three_commands_work_as_written(
    run: Cli, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "new folder"
    here.mkdir()
    monkeypatch.chdir(here)
    shutil.copy(lab.teacher, here / "ckpt.safetensors")

    said = run("distill", "--teacher", "ckpt.safetensors", "--steps", 60, *SMALL, "--json", "-")
    assert said.code == 0, said
    assert f"data: {lab.phantom}, as recorded" in said.err
    facts = json.loads(said.out)
    assert facts["steps"] == 60
    folder = latest_run()
    assert Path(facts["run"]) == folder
    assert folder.name.endswith("-s2d-8x1-mr2ct")
    assert {"config.json", "run.json", "labels.json", "log.csv", "last.pt", "student.safetensors", "sheet.png"} == {
        path.name for path in folder.iterdir()
    }
    record = load_checkpoint(folder / "student.safetensors").record
    assert record is not None
    assert record.teacher_sha256 == sha256(lab.teacher)
    with Image.open(folder / "sheet.png") as sheet:
        assert min(sheet.size) > 64

    said = run("export", "--int8", "--target", "openvino")
    assert said.code == 0, said
    bundle = folder / "s2d-8x1-openvino-int8.sccg"
    assert read_bundle(bundle).contract.teacher_sha256 == sha256(lab.teacher)

    said = run("bench", "--size", 64, "--threads", 1, "--device", "cpu")
    assert said.code == 0, said
    assert "s2d-8x1-openvino-int8" in said.out
    found = read_results(folder / "report" / "result.json")
    assert [row.status for row in found.rows if row.role == "model"] == ["measured", "measured"]
    assert found.is_simulated

    said = run("report", folder / "report" / "result.json", "--out", here / "again")
    assert said.code == 0
    assert (here / "again" / "report.html").is_file()
    assert (here / "again" / "report.md").read_text() == (folder / "report" / "report.md").read_text()


@pytest.mark.slow
def test_an_interrupted_run_is_told_how_to_go_on_and_does(run: Cli, lab: Lab) -> None:
    folder = lab.root / "runs" / "my run"
    command = [sys.executable, "-m", "sccg_compress", "distill", "--teacher", str(lab.teacher), "--out", str(folder)]
    with subprocess.Popen(
        [*command, "--steps", "400", *SMALL],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    ) as child:
        deadline = time.monotonic() + 120
        while not (folder / "log.csv").is_file():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        told = child.communicate(timeout=60)[1]
    assert child.returncode == 130, told
    assert f"go on with: sccg-compress distill --resume '{folder}'" in told
    assert "Traceback" not in told
    assert (folder / "last.pt").is_file()
    assert not (folder / "student.safetensors").exists()
    assert latest_run().name == "first", "what is not finished is not the newest"

    said = run("distill", "--resume", folder)
    assert said.code == 0, said
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["steps"] == 400
    with (folder / "log.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)), "no step twice"
    assert steps[-1] == 400
    assert latest_run().name == "my run"


def test_a_disk_that_is_full_when_the_pictures_are_drawn_costs_nothing_of_the_run(
    run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    folder = lab.root / "runs" / "filled"
    with monkeypatch.context() as patch:
        patch.setattr("sccg_compress.distill_command.write_bytes", full)
        said = run("distill", "--teacher", lab.teacher, "--out", folder, "--steps", 2, *SMALL)
        said.refused("sheet.png", f"make room there, then go on with: sccg-compress distill --resume '{folder}'")
    said = run("distill", "--resume", folder)
    assert said.code == 0, said
    assert (folder / "sheet.png").is_file()
    assert latest_run().name == "filled"


@pytest.mark.slow
def test_without_data_the_phantom_is_used_and_the_command_says_so(
    run: Cli, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(lab.phantom, tmp_path / "runs" / "phantom")
    import torch

    kept = load_checkpoint(lab.teacher)
    torch.save(kept.generator.state_dict(), tmp_path / "latest_net_G.pth")
    said = run("distill", "--teacher", "latest_net_G.pth", "--steps", 2, *SMALL, "--out", "student")
    assert said.code == 0, said
    assert "direction: mr2ct, assumed" in said.err
    assert "the built-in phantom in runs/phantom is used: simulated" in said.err
    assert latest_run() == tmp_path / "student"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "my lab") == [
        "latest_net_G.pth",
        "runs",
        "student",
    ], "the label cache lies below runs/, not beside the student"


def test_a_run_that_could_not_begin_leaves_no_folder(run: Cli, lab: Lab) -> None:
    before = sorted((lab.root / "runs").iterdir())
    for wrong in (("--device", "tpu"), ("--amp", "int4")):
        said = run("distill", "--teacher", lab.teacher, "--steps", 1, *wrong)
        said.refused(wrong[1])
    assert sorted((lab.root / "runs").iterdir()) == before
