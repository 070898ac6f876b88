"""On a terminal, bars say how fast training goes and how long it takes; elsewhere nothing is drawn."""

from __future__ import annotations

import io
import re

import pytest

from sccg_compress.console import reporting
from sccg_teacher_student.loop import Progress


class Stream(io.StringIO):
    """stderr that is a terminal or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    """What is drawn of a run that is half done after 20 s, without colours and cursor movements."""
    stream, now = Stream(terminal), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    with reporting() as reporter:
        reporter.labels(48, 5.0, 10.0, None)
        for step in (25, 50):
            now[0] = step * 0.4
            reporter.training(Progress(step, step / 100, now[0], step * 4, {"total": 0.25}))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_terminal_shows_pace_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    last = [line for line in shown(monkeypatch, terminal=True).splitlines() if line.startswith("training")][-1]
    assert "50%" in last
    assert "0:00:20" in last, "as long as it took so far"
    assert last.rstrip().endswith("loss 0.2500  10.0 slices/s")


def test_labels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.search(r"labels .* 50% .*48 views", shown(monkeypatch, terminal=True))


def test_a_file_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False) == ""
