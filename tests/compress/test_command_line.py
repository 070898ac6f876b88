"""Help, versions, and one line for everything that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from command_line import Cli, Lab

from sccg_compress.models import find_model

VERBS = (
    *("phantom", "train", "distill", "export", "bench", "bench-overhead", "compare", "reader-study", "report", "demo"),
    *("sign", "verify", "plan", "study"),
)


def test_help_of_every_verb_is_there_and_names_its_options(run: Cli) -> None:
    assert all(verb in run("--help").out for verb in VERBS)
    for verb in VERBS:
        said = run(verb, "--help")
        assert said.code == 0
        assert f"Usage: sccg-compress {verb}" in said.out
        assert said.err == ""


def test_no_arguments_give_the_help(run: Cli) -> None:
    said = run()
    assert said.code == 0
    assert said.out == run("--help").out
    assert said.err == ""


def test_version(run: Cli) -> None:
    said = run("--version")
    assert (said.code, said.out) == (0, f"sccg-compress {version('sccg-compress')}\n")


def test_help_imports_nothing_heavy() -> None:
    """Help must answer at once; what it imports does not depend on how busy this machine is."""
    code = (
        "import sys; sys.argv = ['sccg-compress', '--help']; from sccg_compress.cli import main; main();"
        "heavy = {'torch', 'numpy', 'openvino', 'nncf', 'onnx', 'rich', 'scipy', 'importlib.metadata', 'logging'};"
        "print('imported:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("imported: []\n")


@pytest.mark.parametrize("verb", ["train", "distill", "export", "bench", "report", "demo", "phantom"])
def test_an_unknown_option_is_one_line(verb: str, run: Cli) -> None:
    run(verb, "--colour").refused("--colour")


def test_distill_tells_what_is_wrong_in_one_line(run: Cli, lab: Lab, tmp_path: Path) -> None:
    teacher = ("--teacher", lab.teacher)
    run("distill").refused("--teacher FILE")
    run("distill", "--teacher", "nowhere.pt").refused("no checkpoint at nowhere.pt")
    run("distill", *teacher, "--student", "resnext-3").refused("resnext-3", "balanced")
    run("distill", *teacher, "--direction", "ct2mr").refused("--direction ct2mr", "mr2ct")
    run("distill", *teacher, "--direction", "sideways").refused("sideways")
    run("distill", *teacher, "--minutes", 1, "--steps", 3).refused("--minutes or --steps")
    run("distill", *teacher, "--minutes", "nan").refused("above zero")
    run("distill", *teacher, "--steps", 0).refused("above zero")
    run("distill", *teacher, "--data", tmp_path / "gone").refused("no such folder")
    run("distill", *teacher, "--out", lab.run, "--steps", 1).refused("exists already", "--resume")
    run("distill", *teacher, "--device", "tpu", "--steps", 1).refused("'tpu'")
    run("distill", *teacher, "--weight-features", 1, "--steps", 1).refused("--feature-tap")
    run("distill", "--resume", "runs").refused("not a run folder")
    assert sorted(path.name for path in (lab.root / "runs").iterdir()) == ["first", "latest"], "no run was begun"


def test_resume_does_not_take_options_that_it_would_ignore(run: Cli, lab: Lab) -> None:
    said = run("distill", "--resume", lab.run, "--minutes", 5, "--student", "fast")
    said.refused("--minutes, --student", "as the run began")


def test_a_damaged_config_cannot_be_resumed(run: Cli, lab: Lab) -> None:
    config = lab.run / "config.json"
    for content in (b"{", b"[]", b"\xff\xfe", b'{"teacher": "a"}'):
        config.unlink()
        config.write_bytes(content)
        run("distill", "--resume", lab.run).refused("config.json")


def test_export_tells_what_is_wrong_in_one_line(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    run("export", "nowhere").refused("no model at nowhere")
    run("export", tmp_path).refused("is not a run folder")
    run("export", bundles / "small.sccg").refused("is a bundle already")
    run("export", "--fp32", "--int8").refused("exclude each other")
    run("export", "--target", "coreml").refused("'coreml' is none of openvino, ort")
    run("export", "--size", "big").refused("'big' is not ROWSxCOLUMNS")
    run("export", "--size", "8x8").refused("16 to 4096")
    run("export", "--size", "66x66").refused("size 66x66: both sides must be multiples of 4")
    run("export", "--direction", "ct2mr").refused("--direction ct2mr")
    run("export", "--out", "model.onnx").refused("ends in .sccg")
    run("export", "--min-psnr", "nan").refused("finite")
    run("export", "--teacher", "gone.pt").refused("no checkpoint at gone.pt")
    assert not list(lab.root.rglob("*.sccg"))


def test_bench_tells_what_is_wrong_in_one_line(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    run("bench", "nowhere.sccg").refused("no model at nowhere.sccg")
    run("bench", "--size", "5x5").refused("16 to 4096")
    run("bench", "--size", "66x64").refused("--size 66x64: both sides must be multiples of 4 for")
    run("bench", "--split", "best").refused("'best' is none of")
    run("bench", "--device", "gpu").refused("'gpu' is none of auto, cpu, cuda")
    run("bench", "--direction", "ct2mr").refused("one direction at a time", "--direction is ct2mr")
    run("bench", bundles / "small.sccg", "--direction", "ct2mr").refused("small.sccg is mr2ct")
    run("bench", "--data", tmp_path / "gone").refused("no such folder")
    if not torch.cuda.is_available():
        run("bench", "--device", "cuda").refused("no CUDA device here")


def test_report_tells_what_is_wrong_in_one_line(run: Cli, tmp_path: Path) -> None:
    run("report", tmp_path / "gone.json").refused("gone.json: cannot be read")
    for content in ("{", "[]", '{"schema": "other"}', '{"schema": "sccg-bench/1", "machine": {}}'):
        (tmp_path / "bad.json").write_text(content, encoding="utf-8")
        run("report", tmp_path / "bad.json").refused("bad.json")


def test_without_a_run_the_next_step_is_told(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("export", "bench"):
        run(verb).refused("no run yet", "sccg-compress distill --teacher FILE")


@pytest.mark.parametrize("content", ["gone", "", "../elsewhere", "first/deeper", "/nowhere/at/all", "\udcff"])
def test_a_stale_or_spoiled_latest_is_told(content: str, run: Cli, lab: Lab) -> None:
    (lab.root / "runs" / "latest").write_bytes(content.encode("utf-8", "surrogateescape"))
    run("export").refused("latest names", "name the run yourself")


def test_a_damaged_run_config_is_told(run: Cli, lab: Lab) -> None:
    config = lab.run / "config.json"
    for content in ("{", "[]", "{}", "[" * 100_000):
        config.unlink()
        config.write_text(content, encoding="utf-8")
        run("bench").refused("config.json is damaged")


def test_a_config_of_something_else_beside_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x"}', encoding="utf-8")
    (tmp_path / "teacher.safetensors").touch()
    assert find_model(tmp_path / "teacher.safetensors").run_teacher() is None


def test_a_file_that_cannot_be_written_is_one_line(run: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run("phantom", "--out", tmp_path / "file" / "below", "--patients", 1, "--slices", 1, "--size", 16).refused("file")


def test_a_full_disk_is_one_line(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    path.write_text('{"schema": "sccg-bench/1", "machine": {}, "provenance": {}, "rows": []}', encoding="utf-8")
    monkeypatch.setattr("sccg_bench.report.html.write_html", full)
    run("report", path, "--out", tmp_path / "out").refused("No space left on device")


def test_debug_shows_where_it_went_wrong() -> None:
    command = [sys.executable, "-m", "sccg_compress", "--debug", "export", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


def test_bench_s_own_report_with_its_pictures_is_not_replaced(run: Cli, tmp_path: Path) -> None:
    path = tmp_path / "report" / "result.json"
    path.parent.mkdir()
    path.write_text('{"schema": "sccg-bench/1", "machine": {}, "provenance": {}, "rows": []}', encoding="utf-8")
    (path.parent / "report.html").touch()
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    for one in (path, other):
        run("report", one, "--out", path.parent).refused("with pictures", "--out")
    shutil.copytree(path.parent, tmp_path / "out" / "result")
    run("report", other, path, "--out", tmp_path / "out").refused("with pictures", "--out")
    assert {one.name for one in path.parent.iterdir()} == {"result.json", "report.html"}
    assert not (tmp_path / "out" / "other").exists(), "all or none"
    (path.parent / "report.html").unlink()  # as where bench was ended before it wrote one
    assert run("report", path, "--out", path.parent).code == 0
    assert (path.parent / "report.html").is_file()


def test_letters_that_stdout_cannot_write_are_spelt_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sccg_compress", "phantom", "--out", tmp_path / "Δ"]
    told = subprocess.run(
        [*command, "--patients", "1", "--slices", "1", "--size", "32"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"\\u0394: 1 cases" in told.stdout


def test_several_results_get_a_report_each_though_all_are_called_result_json(run: Cli, tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        path = tmp_path / name / "result.json"
        path.parent.mkdir()
        values = {"schema": "sccg-bench/1", "machine": {}, "provenance": {"cases": [name]}, "rows": []}
        path.write_text(json.dumps(values), encoding="utf-8")
        paths.append(path)
    said = run("report", *paths, "--out", tmp_path / "out put")
    assert said.code == 0
    written = said.out.split("\n")[:-1]
    assert len(set(written)) == 2
    assert all(Path(one).is_file() for one in written)


def test_json_that_cannot_be_written_is_told_before_any_work(run: Cli, tmp_path: Path) -> None:
    for verb in (("export", "no such model"), ("bench", "no such model"), ("plan", "--budget-ms", 5), ("doctor",)):
        run(*verb, "--json", tmp_path).refused(f"--json {tmp_path} is a folder: name a file in it")
