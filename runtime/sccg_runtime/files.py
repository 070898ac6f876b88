"""Outputs are made whole or not at all: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sccg_runtime.errors import InputError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, as a full disk's does, name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it onto ``path`` when the block ends without an error.

    The temporary name keeps the suffix, so libraries that look at it still write the right format.
    Whatever stood at ``path`` before is untouched until the rename, and for good if the block fails. Its permissions
    stay.

    Raises
    ------
    OSError
        Something that is no file stands at ``path``, or the disk is full, and the like.

    Example
    -------
    >>> with replacing(Path("report.md")) as temporary:
    ...     temporary.write_text("# Report")
    """
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null, which root could replace
        raise OSError(errno.EINVAL, "not a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.is_file() else 0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(out: Path, *, replaceable: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; put it in the place of ``out`` when the block ends without an error.

    ``out`` must still be empty or missing then, or ``replaceable``, called with what stands there, must not raise: that
    is moved aside first and removed last, so that one of both is always there whole. Its permissions stay. If the
    block fails, the temporary folder is removed and ``out`` is as it was.

    Raises
    ------
    InputError
        The folder cannot be made or moved, or ``out`` was filled meanwhile by something else.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = _folder_beside(out, "partial")
    except OSError as error:
        raise InputError(f"{out.name} cannot be made: {error.strerror}") from None
    try:
        yield staging
        staging.chmod(_mode(out))
        _swap(staging, out, replaceable)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _folder_beside(out: Path, kind: str) -> Path:
    """A new, hidden one; closed to others but on Windows, where mode 0o700 is more than a mode, and would stay."""
    folder = out.with_name(f".{out.name}-{secrets.token_hex(4)}.{kind}")
    folder.mkdir(mode=0o777 if os.name == "nt" else 0o700)
    return folder


def _mode(out: Path) -> int:
    """Permissions of the folder that is there, so that a closed one stays closed; else those of a new folder."""
    if out.is_dir():
        return out.stat().st_mode & 0o777
    return 0o777 & ~_umask()


def _swap(staging: Path, out: Path, replaceable: Callable[[Path], None] | None) -> None:
    aside: Path | None = None
    try:
        if replaceable is None and out.is_dir():
            out.rmdir()  # fails where something has come in since the start
        elif replaceable is not None and os.path.lexists(out):
            replaceable(out)
            aside = _folder_beside(out, "previous")
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all; of a file's name what is not UTF-8 is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sha256(data: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's content, as 64 hexadecimal digits."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
