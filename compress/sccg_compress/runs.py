"""Run folders: ``runs/DATE-STUDENT-DIRECTION/``, and ``runs/latest``, a text file with the newest's name."""

from __future__ import annotations

from pathlib import Path

from sccg_runtime.errors import InputError
from sccg_runtime.files import write_text

RUNS = Path("runs")
LATEST = "latest"
CACHE = "cache"
PHANTOM = "phantom"


def latest_run(root: Path = RUNS) -> Path:
    """The newest run's folder.

    Raises
    ------
    InputError
        There is none, or it is gone.
    """
    pointer = root / LATEST
    if not pointer.is_file():
        raise InputError(f"no run yet: {pointer} does not exist; start one with `sccg-compress distill --teacher FILE`")
    name = pointer.read_text(encoding="utf-8").strip()
    folder = root / name
    if not name or Path(name).name != name or not folder.is_dir():
        raise InputError(f"{pointer} names {name!r}, which is not a run folder beside it; name the run yourself")
    return folder


def mark_latest(folder: Path) -> None:
    """Make ``folder`` the newest run of its root."""
    write_text(folder.parent / LATEST, folder.name + "\n")
