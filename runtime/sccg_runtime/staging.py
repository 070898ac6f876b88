"""What may be an output of a conversion, and what of an earlier one may be replaced."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.source import file_entry
from sccg_runtime.dicom.write import PROGRAM
from sccg_runtime.errors import InputError, SeriesError

NIFTI_HEADER_BYTES, NIFTI_DESCRIPTION = 348, slice(148, 228)  # of NIfTI-1: its size, and where descrip lies


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
        It exists, is no empty folder, and ``force`` is not given; it is something else than an earlier output could be,
        or the current folder; or it is, holds or lies in the source; or it cannot be looked into, or not be moved.
    """
    target, origin = (Path(os.path.realpath(path)) for path in (out, source))  # resolve() raises on loops of links
    if target == origin or target in origin.parents or origin in target.parents:
        raise InputError(f"{out.name}: the output must be apart from the source, neither in it nor around it")
    if not os.path.lexists(out):
        return
    if not force and (file or not _is_empty(out)):
        raise InputError(f"{out.name} exists: give another name, or --force to replace it")
    if out.is_symlink() or not (out.is_file() if file else out.is_dir()):
        raise InputError(f"{out.name} is not a {'file' if file else 'folder'}")
    if file:
        check_earlier_file(out)
    else:
        if _is_current(out):  # the caller would be left in a folder that is no more
            raise InputError(f"{out.name} is the current folder, which cannot be replaced: give a folder in it")
        if os.path.ismount(out):
            raise InputError(f"{out.name} is a mount point, which cannot be replaced: give a folder in it")
        check_earlier(out)


def check_earlier(out: Path) -> None:
    """InputError unless the folder holds nothing but this program's synthetic images, as a conversion leaves it."""
    try:
        earlier = all(map(_is_synthetic, out.iterdir()))
    except OSError as error:
        raise InputError(f"{out.name} cannot be looked into: {error.strerror}: give another folder") from None
    if not earlier:
        raise InputError(
            f"{out.name} holds something else than synthetic images of an earlier conversion: it is not replaced; give "
            "another folder"
        )


def check_earlier_file(out: Path) -> None:
    """InputError unless the file is a NIfTI volume whose header says that it is synthetic."""
    try:
        with gzip.open(out) as volume:
            header = volume.read(NIFTI_HEADER_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        header = b""
    except OSError as error:
        raise InputError(f"{out.name} cannot be looked into: {error.strerror}: give another name") from None
    if not header[NIFTI_DESCRIPTION].startswith(b"SYNTHETIC"):
        raise InputError(
            f"{out.name} is something else than a synthetic volume of an earlier conversion: it is not replaced; give "
            "another name"
        )


def _is_synthetic(path: Path) -> bool:
    if path.suffix != ".dcm" or path.is_symlink() or not path.is_file():
        return False
    try:
        header = read_header(file_entry(path))
    except SeriesError:
        return False  # damaged: nobody knows what it is
    return header is not None and header.synthetic and header.maker == PROGRAM


def _is_current(path: Path) -> bool:
    try:
        return path.samefile(os.curdir)
    except OSError:  # a folder that may not be searched: somebody else's
        return False


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    except OSError:
        return False
