"""Run folders: ``runs/DATE-STUDENT-DIRECTION/``, and ``runs/latest``, a text file with the newest's name.

A run that was made elsewhere (``distill --out``) is the newest too: ``runs/latest`` then holds its absolute path.
"""

from __future__ import annotations

from pathlib import Path

from sccg_runtime.errors import InputError
from sccg_runtime.files import write_text

RUNS = Path("runs")
LATEST = "latest"
CACHE = "cache"
PHANTOM = "phantom"


def root_of(folder: Path) -> Path:
    """Where a run's ``latest`` and label cache lie: the folder above it if that is called ``runs``, else ``runs``."""
    above = folder.resolve().parent
    return folder.parent if above.name == RUNS.name and above == folder.parent.resolve() else RUNS


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
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    plain = bool(name) and (Path(name).name == name or Path(name).is_absolute())
    if not plain or not (root / name).is_dir():
        raise InputError(f"{pointer} names {name[:200]!r}, which is no run folder (any more); name the run yourself")
    return root / name


def mark_latest(folder: Path) -> None:
    """Make ``folder`` the newest run."""
    root = root_of(folder)
    name = folder.name if folder.parent.resolve() == root.resolve() else str(folder.resolve())
    write_text(root / LATEST, name + "\n")
