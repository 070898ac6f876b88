"""A folder with phantom, teacher, one finished run and its bundles; and the command line, called as a function."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "export")]

import small_models  # noqa: E402
from command_line import Cli, Lab, Said  # noqa: E402
from study_fakes import fake_study  # noqa: E402

from sccg_bench.latency import PROFILES, LatencyPlan  # noqa: E402
from sccg_compress import cli  # noqa: E402
from sccg_runtime.files import sha256  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in ("distill", "train"):
        monkeypatch.setattr(f"sccg_teacher_student.{module}.use_cores", lambda: None)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency from a handful of queries: these tests are about what is reported, not about how fast it was."""
    plan = LatencyPlan(
        queries=4,
        seconds=0.01,
        warmup_queries=1,
        warmup_seconds=0.01,
        block_seconds=0.02,
        throughput_seconds=0.02,
        series_repeats=1,
    )
    monkeypatch.setitem(PROFILES, "quick", plan)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``run("export", "--int8")``: the command line in this process."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["sccg-compress", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        assert isinstance(code, int)
        return Said(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Phantom, teacher and a run with a student, as distill leaves them; not to be changed."""
    root = tmp_path_factory.mktemp("with space") / "a lab"
    phantom = small_models.make_phantom(root / "phantom")
    teacher = small_models.train(small_models.TEACHER, phantom, root / "teacher" / "teacher_mr2ct.safetensors")
    folder = root / "runs" / "first"
    small_models.train(small_models.STUDENT, phantom, folder / "student.safetensors", teacher=teacher)
    config = {"teacher": str(teacher), "direction": "mr2ct"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (root / "runs" / "latest").write_text("first\n", encoding="utf-8")
    return Lab(root, phantom, teacher, folder)


@pytest.fixture
def lab(finished: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A run of one's own (linked files, same phantom and teacher), in the current folder."""
    root = tmp_path / "my lab"
    folder = root / "runs" / "first"
    folder.mkdir(parents=True)
    for path in finished.run.iterdir():
        os.link(path, folder / path.name)
    (root / "runs" / "latest").write_text("first\n", encoding="utf-8")
    monkeypatch.chdir(root)
    return Lab(root, finished.phantom, finished.teacher, folder)


@pytest.fixture(scope="session")
def bundles(finished: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an INT8 OpenVINO bundle of the finished run's student, made by the command line."""
    out = tmp_path_factory.mktemp("made") / "small.sccg"
    before, sys.argv = sys.argv, ["sccg-compress", "export", str(finished.run), "--int8", "--out", str(out)]
    torch.set_num_threads(1)
    try:
        cli.main()
    finally:
        sys.argv = before
    assert sha256(out)
    return out.parent


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> list[str]:
    """What a study did, at once and without training, exporting or measuring."""
    return fake_study(monkeypatch)
