"""Where DICOM files come from: a folder, one file, or a zip that is read in memory."""

from __future__ import annotations

import io
import lzma
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sccg_runtime.errors import InputError
from sccg_runtime.pipeline import answer_signals

HEAD_BYTES = 132  # preamble and "DICM" (PS3.10 7.1)
MAX_FILES = 100_000
MAX_FILE_BYTES = 1024**3
MAX_ZIP_BYTES = 16 * 1024**3


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the input.

    Attributes
    ----------
    name
        Base name, for messages.
    open
        Opens it for reading; a new stream each time.
    head
        Reads its first :data:`HEAD_BYTES` alone, which say whether it is DICOM.
    """

    name: str
    open: Callable[[], BinaryIO] = field(repr=False)
    head: Callable[[], bytes] = field(repr=False)


def entries(source: Path) -> list[Entry]:
    """All files of a folder (with its sub-folders) or of a ``.zip``, by name.

    What is no file (a link to a folder, which is not followed, a pipe, a socket, a device) is an entry without content:
    like a file that is not DICOM, it is counted, or refused if it is called like an image.

    A zip is never unpacked: its members are read in memory, and their names serve as labels only, so a path in them
    leads nowhere.

    Raises
    ------
    InputError
        There is no such folder or file, nothing in it, a link to nowhere, something that may not be read, folders in
        folders without end, or more than 100 000 files, 1 GiB in one file or 16 GiB in a zip.
    """
    name = source.name or str(source)
    try:
        if source.is_dir():
            found = _folder(source)
        elif source.is_file():
            found = _zip(source) if zipfile.is_zipfile(source) else [file_entry(source)]
        elif source.exists():
            raise InputError(f"{name} is a pipe, a socket or a device: name a folder, a DICOM file or a zip")
        else:
            raise InputError(f"{name}: no such folder or file")
    except OSError as error:
        raise _unreadable(Path(error.filename or source).name, error) from None
    except RecursionError:  # os.walk calls itself for every level
        raise InputError(f"{name} holds folders in folders without end: name the series' own folder") from None
    if not found:
        raise InputError(f"{name} holds no file: name the series' own folder")
    return found


def _unreadable(name: str, error: OSError) -> InputError:
    return InputError(f"{name}: {error.strerror or 'it cannot be read'}: make it readable, or remove it")


def _folder(folder: Path) -> list[Entry]:
    def fail(error: OSError) -> None:
        raise error

    found: list[Entry] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        answer_signals()
        folders.sort()
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            if name.startswith("."):
                continue
            path = Path(parent, name)
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
            except FileNotFoundError:
                text = f"{name} is a link to a file that is not there: fetch the file or remove the link"
                raise InputError(text) from None
            found.append(file_entry(path) if is_file else Entry(name, io.BytesIO, bytes))
            if len(found) > MAX_FILES:
                raise InputError(f"{folder.name} holds more than {MAX_FILES} files: name the series' own folder")
    return found


def file_entry(path: Path) -> Entry:
    """One file; reading it raises InputError where it may not be read, opening it also where it has more than 1 GiB."""

    def opened() -> BinaryIO:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InputError(f"{path.name} is larger than {MAX_FILE_BYTES // 1024**2} MiB: remove it")
            return path.open("rb")
        except OSError as error:
            raise _unreadable(path.name, error) from None

    def head() -> bytes:
        try:
            with path.open("rb") as stream:
                return stream.read(HEAD_BYTES)
        except OSError as error:
            raise _unreadable(path.name, error) from None

    return Entry(path.name, opened, head)


def _zip(path: Path) -> list[Entry]:
    lock = threading.Lock()
    try:
        archive = zipfile.ZipFile(path)  # stays open as long as an entry lives: its directory is read once
        infos = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        raise InputError(f"{path.name} is a damaged zip: copy it again") from None
    if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_ZIP_BYTES:
        most = f"{MAX_FILES} files or {MAX_ZIP_BYTES // 1024**3} GiB"
        raise InputError(f"{path.name} holds more than {most}: make a zip of the series alone")

    def entry(info: zipfile.ZipInfo) -> Entry:
        name = PurePosixPath(info.filename.replace("\\", "/")).name or "?"

        def read(most: int) -> bytes:
            if info.flag_bits & 0x1:
                raise InputError(f"{path.name} is encrypted: unpack it first")
            try:
                with lock, archive.open(info) as member:
                    return member.read(most)
            except (
                zipfile.BadZipFile,
                zlib.error,
                lzma.LZMAError,
                NotImplementedError,
                RuntimeError,
                EOFError,
                ValueError,
                OSError,
            ):
                raise InputError(f"{name} in {path.name} is damaged: copy the zip again") from None

        def opened() -> BinaryIO:
            if info.file_size > MAX_FILE_BYTES:
                raise InputError(f"{name} in {path.name} is larger than {MAX_FILE_BYTES // 1024**2} MiB: remove it")
            content = read(info.file_size + 1)
            if len(content) != info.file_size:
                raise InputError(f"{name} in {path.name} is cut off: copy the zip again")
            return io.BytesIO(content)

        return Entry(name, opened, lambda: read(HEAD_BYTES))

    return [entry(info) for info in infos if not PurePosixPath(info.filename).name.startswith(".")]
