"""An output folder that is made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.source import Entry
from sccg_runtime.errors import InputError, SeriesError


def check_output(out: Path, source: Path, *, force: bool, file: bool = False) -> None:
    """Refuse an output that must not be written, before any work is done.

    Parameters
    ----------
    out
        The output.
    source
        What is converted.
    force
        Whether an earlier output may be replaced.
    file
        Whether the output is one file, not a folder of DICOM files.

    Raises
    ------
    InputError
        It exists, is no empty folder or the current one, and ``force`` is not given; it is something else than an
        earlier output could be; or it is, holds or lies in the source; or it cannot be looked into, or not be moved.
    """
    target, origin = (Path(os.path.realpath(path)) for path in (out, source))  # resolve() raises on loops of links
    if target == origin or target in origin.parents or origin in target.parents:
        raise InputError(f"{out.name}: the output must be apart from the source, neither in it nor around it")
    if not os.path.lexists(out):
        return
    if not force and (file or not _may_be_taken(out)):
        raise InputError(f"{out.name} exists: give another name, or --force to replace it")
    if out.is_symlink() or not (out.is_file() if file else out.is_dir()):
        raise InputError(f"{out.name} is not a {'file' if file else 'folder'}")
    if not file:
        if os.path.ismount(out):
            raise InputError(f"{out.name} is a mount point, which cannot be replaced: give a folder in it")
        _check_earlier(out)


def _check_earlier(out: Path) -> None:
    """InputError unless the folder holds nothing but synthetic images, as an earlier conversion leaves it."""
    try:
        earlier = all(map(_is_synthetic, out.iterdir()))
    except OSError as error:
        raise InputError(f"{out.name} cannot be looked into: {error.strerror}: give another folder") from None
    if not earlier:
        raise InputError(
            f"{out.name} holds something else than synthetic images of an earlier conversion: it is not replaced; give "
            "another folder"
        )


def _is_synthetic(path: Path) -> bool:
    if path.suffix != ".dcm" or path.is_symlink() or not path.is_file():
        return False
    try:
        header = read_header(Entry(path.name, lambda: path.open("rb")))
    except SeriesError:
        return False  # damaged: nobody knows what it is
    return header is not None and header.synthetic


def _may_be_taken(path: Path) -> bool:
    """Whether it is an empty folder, and not the one that the caller stands in, who would be left in a removed one."""
    try:
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        return empty and not path.samefile(os.curdir)
    except OSError:
        return False


@contextlib.contextmanager
def whole_folder(out: Path, *, force: bool = False, check: Callable[[Path], None] = _check_earlier) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; put it in the place of ``out`` when the block ends without an error.

    With ``force``, what stood at ``out`` before is moved aside first and removed last, so that one of both is always
    there whole; without, ``out`` must still be empty or missing. Its permissions stay. If the block fails, the
    temporary folder is removed and ``out`` is as it was. ``check`` raises where what stands there is to stay even so;
    by default, everything but synthetic images of an earlier conversion.

    Raises
    ------
    InputError
        The folder cannot be made or moved, or ``out`` was filled meanwhile by something else.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out.name} cannot be made: {error.strerror}") from None
    try:
        yield staging
        staging.chmod(_mode(out))
        _swap(staging, out, check if force else None)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _mode(out: Path) -> int:
    """Permissions of the folder that is there, so that a closed one stays closed; else those of a new folder."""
    if out.is_dir():
        return out.stat().st_mode & 0o777
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o777 & ~mask


def _swap(staging: Path, out: Path, check: Callable[[Path], None] | None) -> None:
    aside: Path | None = None
    try:
        if check is None and out.is_dir():
            out.rmdir()  # fails where something has come in since the start
        elif check is not None and os.path.lexists(out):
            check(out)
            aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".previous", dir=out.parent))
            out.rename(aside / out.name)
        try:
            staging.rename(out)
        except BaseException:
            if aside is not None:
                (aside / out.name).rename(out)
            raise
    except OSError as error:
        raise InputError(f"{out.name} cannot be put in place: {error.strerror}") from None
    finally:
        if aside is not None and out.exists():
            shutil.rmtree(aside, ignore_errors=True)
