"""Run folders: ``runs/DATE-STUDENT-DIRECTION/``, and ``runs/latest``, a text file with the newest's name.

A run that was made elsewhere (``distill --out``) is the newest too: ``runs/latest`` then holds its absolute path.
"""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from sccg_compress.console import say
from sccg_runtime.errors import InputError, SccgError
from sccg_runtime.files import write_bytes, write_text

RUNS = Path("runs")
LATEST = "latest"
CACHE = "cache"
LOCK = ".lock"
PHANTOM = "phantom"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        raise InputError(
            f"no run yet here: {pointer} does not exist; start one with `sccg-compress distill --teacher FILE`"
        )
    name = os.fsdecode(pointer.read_bytes()).strip()
    plain = bool(name) and (Path(name).name == name or Path(name).is_absolute())
    if not plain or not (root / name).is_dir():
        raise InputError(f"{pointer} names {name[:200]!r}, which is no run folder (any more); name the run yourself")
    return root / name


def mark_latest(folder: Path) -> None:
    """Make ``folder`` the newest run."""
    root = root_of(folder)
    name = folder.name if folder.parent.resolve() == root.resolve() else str(folder.resolve())
    write_bytes(root / LATEST, os.fsencode(name + "\n"))


def run_folder(root: Path, student: str, direction: str) -> Path:
    """A new folder ``root/DATE-TIME-STUDENT-DIRECTION``; a number is added if it is taken."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{student}-{direction}"
    for number in range(1000):
        folder = root / (stem if number == 0 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise InputError(f"no free run folder below {root}")


@contextmanager
def begun(out: Path | None, name: str, direction: str, config: tuple[str, str]) -> Iterator[Path]:
    """A new run folder, the same on all processes, with its configuration (file name, text) in it.

    ``out``, or by default ``runs/DATE-NAME-DIRECTION``. Where nothing was begun before an error, the folder goes again.

    Raises
    ------
    InputError
        ``out`` holds something already; hidden files, as a killed process leaves them, count as nothing.
    """
    from sccg_teacher_student import parallel

    folder, first = out, parallel.rank() == 0
    if first:
        if out is None:
            folder = run_folder(RUNS, name, direction)
        elif out.exists() and (not out.is_dir() or not all(entry.name.startswith(".") for entry in out.iterdir())):
            raise InputError(f"{out} exists already; choose another --out, or go on with --resume {out}")
        else:
            out.mkdir(parents=True, exist_ok=True)
    folder = Path(parallel.agreed(str(folder)))
    path = folder / config[0]
    if first:
        write_text(path, config[1])
    try:
        yield folder
    except SccgError:
        if first and list(folder.iterdir()) == [path]:
            path.unlink()
            folder.rmdir()
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder`` meanwhile.

    Raises
    ------
    InputError
        One is at work there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"another process is at work in {folder}: wait for its end") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps open files; before the release, or it could be another's by then
            (folder / LOCK).unlink()
        lock.release()


@contextmanager
def resumable(verb: str, folder: Path) -> Iterator[None]:
    """Alone in the folder; whatever ends a run from outside, say with which command it goes on.

    That is Ctrl-C, or a full disk (OSError).
    """
    from sccg_teacher_student import parallel

    command = f"sccg-compress {verb} --resume {shlex.quote(str(folder))}"
    try:
        with alone(folder) if parallel.rank() == 0 else nullcontext():
            yield
    except KeyboardInterrupt:
        say(f"interrupted; go on with: {command}")
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        told = f"{error.strerror}; make room there, then go on with: {command}"
        raise OSError(error.errno, told, error.filename or str(folder)) from error
