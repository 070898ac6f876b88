"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lab:
    """Folders and files of one finished piece of work."""

    root: Path
    phantom: Path
    teacher: Path
    run: Path


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str, code: int = 2) -> None:
        """Assert that it ended with one line that has all ``parts`` in it."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert self.code == code, self
        assert len(lines) == 1, self
        assert self.err.rstrip().endswith(lines[0]), "the error is the last line"
        assert "Traceback" not in self.err
        for part in parts:
            assert part in lines[0], lines[0]


Cli = Callable[..., Said]
