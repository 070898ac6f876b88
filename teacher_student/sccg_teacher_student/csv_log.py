"""A CSV file that grows by whole lines while a run goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from sccg_runtime.files import naming, write_bytes


def append_row(path: Path, names: Sequence[str], values: Sequence[object]) -> None:
    """Add a line to a CSV file, whole or not at all; ``names`` head a new file.

    Raises
    ------
    OSError
        The disk is full, and the like.
    """
    size = path.stat().st_size if path.is_file() else 0
    text = io.StringIO(newline="")
    csv.writer(text).writerows([values] if size else [names, values])
    with naming(path):
        try:
            with path.open("ab") as file:
                file.write(text.getvalue().encode())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def drop_rows(path: Path, after: int) -> None:
    """Take lines of steps (first column) beyond ``after``, and damaged ones, out of a CSV file, if there is one."""
    if not path.is_file():
        return
    head, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
    steps = [line.partition(b",")[0] if line.endswith(b"\n") else b"" for line in lines]
    kept = [line for line, step in zip(lines, steps, strict=True) if step.isdigit() and int(step) <= after]
    if len(kept) < len(lines):
        write_bytes(path, b"".join([head, *kept]))
