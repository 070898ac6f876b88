"""Where DICOM files come from: a folder, one file, or a zip that is read in memory."""

from __future__ import annotations

import io
import os
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sccg_runtime.errors import InputError

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
    """

    name: str
    open: Callable[[], BinaryIO] = field(repr=False)


def entries(source: Path) -> list[Entry]:
    """All files of a folder (with its sub-folders; links to folders are not followed) or of a ``.zip``, by name.

    A zip is never unpacked: its members are read in memory, and their names serve as labels only, so a path in them
    leads nowhere.

    Raises
    ------
    InputError
        There is no such folder or file, nothing in it, a link to nowhere, or more than 100 000 files, 1 GiB in one file
        or 16 GiB in a zip.
    """
    if source.is_dir():
        found = _folder(source)
    elif source.is_file() and zipfile.is_zipfile(source):
        found = _zip(source)
    elif source.is_file():
        found = [_file(source)]
    else:
        raise InputError(f"{source.name or source}: no such folder or file")
    if not found:
        raise InputError(f"{source.name or source} holds no file")
    return found


def _folder(folder: Path) -> list[Entry]:
    def fail(error: OSError) -> None:
        raise InputError(f"{Path(error.filename or folder).name}: {error.strerror}: a folder cannot be read") from None

    found: list[Entry] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if not path.exists():
                raise InputError(f"{name} is a link to a file that is not there: fetch the file or remove the link")
            if not path.is_file():
                continue
            found.append(_file(path))
            if len(found) > MAX_FILES:
                raise InputError(f"{folder.name} holds more than {MAX_FILES} files: name the series' own folder")
    return found


def _file(path: Path) -> Entry:
    def opened() -> BinaryIO:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InputError(f"{path.name} is larger than {MAX_FILE_BYTES // 1024**2} MiB")
            return path.open("rb")
        except OSError as error:
            raise InputError(f"{path.name}: {error.strerror}: cannot be read") from None

    return Entry(path.name, opened)


def _zip(path: Path) -> list[Entry]:
    lock = threading.Lock()
    try:
        archive = zipfile.ZipFile(path)  # stays open as long as an entry lives: its directory is read once
        infos = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        raise InputError(f"{path.name} is a damaged zip") from None
    if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_ZIP_BYTES:
        raise InputError(f"{path.name} holds more than {MAX_FILES} files or {MAX_ZIP_BYTES // 1024**3} GiB")

    def entry(info: zipfile.ZipInfo) -> Entry:
        name = PurePosixPath(info.filename.replace("\\", "/")).name or "?"

        def opened() -> BinaryIO:
            if info.file_size > MAX_FILE_BYTES:
                raise InputError(f"{name} in {path.name} is larger than {MAX_FILE_BYTES // 1024**2} MiB")
            if info.flag_bits & 0x1:
                raise InputError(f"{path.name} is encrypted: unpack it first")
            try:
                with lock, archive.open(info) as member:
                    content = member.read(info.file_size + 1)
            except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
                raise InputError(f"{name} in {path.name} is damaged") from None
            if len(content) != info.file_size:
                raise InputError(f"{name} in {path.name} is cut off")
            return io.BytesIO(content)

        return Entry(name, opened)

    return [entry(info) for info in infos if not PurePosixPath(info.filename).name.startswith(".")]
