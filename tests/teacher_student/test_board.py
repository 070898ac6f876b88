"""What a full disk leaves of logs that grow: whole lines, and an error that says which file."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from teacher_fakes import little_room

from sccg_teacher_student.board import Board
from sccg_teacher_student.csv_log import append_row


def test_a_table_grows_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with little_room(20), pytest.raises(OSError, match="too large") as caught:
        append_row(path, ["step", "loss"], ["1", "x" * 50])
    assert caught.value.filename == str(path)
    append_row(path, ["step", "loss"], ["1", "0.5"])
    before = path.read_bytes()
    with little_room(len(before) + 3), pytest.raises(OSError, match="too large"):
        append_row(path, ["step", "loss"], ["2", "0.25"])
    assert path.read_bytes() == before
    append_row(path, ["step", "loss"], ["2", "0, 2"])
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": "0, 2"}]


def test_events_without_room_are_told_and_nothing_comes_after(tmp_path: Path) -> None:
    """In another process: what was not written must not be tried again when Python ends."""
    code = (
        "import resource, pathlib\n"
        "from sccg_teacher_student.board import Board\n"
        "with Board(pathlib.Path()) as board:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        board.add('loss', dict.fromkeys(map(str, range(50)), 1.0), 1)\n"
        "    except OSError as error:\n"
        "        print(error.filename)\n"
    )
    pytest.importorskip("resource", reason="this system cannot limit the size of files")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    (events,) = tmp_path.iterdir()
    assert done.stdout.strip() == events.name
    assert done.stderr == ""


def test_every_run_has_a_file_of_its_own(tmp_path: Path) -> None:
    for step in (1, 2):
        with Board(tmp_path) as board:
            board.add("loss", {"total": 1.0}, step)
        assert board.path.stat().st_size > 50
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
