"""What the readers of PNG, DICOM and NIfTI share: their protocol and how folders are listed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

DataKind = Literal["png", "dicom", "nifti"]
_IGNORED = frozenset({"thumbs.db", "desktop.ini", "dicomdir", "__macosx"})


@dataclass(frozen=True, slots=True)
class SliceNames:
    """Slice names of one case, per modality, in order; a modality without slices is empty."""

    mr: tuple[str, ...]
    ct: tuple[str, ...]

    @property
    def paired(self) -> tuple[str, ...]:
        """The names that both have; where one modality has no slices at all, the names of the other."""
        if not self.mr or not self.ct:
            return self.mr or self.ct
        there = set(self.ct)
        return tuple(name for name in self.mr if name in there)

    @property
    def unpaired(self) -> tuple[str, ...]:
        """``mr/NAME`` and ``ct/NAME`` of the slices that have no partner, where both modalities are there."""
        if not self.mr or not self.ct:
            return ()
        mr, ct = set(self.mr), set(self.ct)
        return (*(f"mr/{n}" for n in self.mr if n not in ct), *(f"ct/{n}" for n in self.ct if n not in mr))


class Reader(Protocol):
    """Reads the cases of one kind of data."""

    def names(self, folder: Path) -> SliceNames:
        """Slice names of the case in ``folder``."""

    def load(self, folder: Path, name: str) -> tuple[FloatArray | None, FloatArray | None]:
        """(mr, ct) of one slice, each (1, H, W) float32 in [-1, 1], or None where that modality is not there."""

    def spacing_mm(self, folder: Path) -> tuple[float, float] | None:
        """(row, column) distance of pixel centres in mm that the files state, or None where they state none."""


def visible(folder: Path) -> list[Path]:
    """Entries of a folder in natural order, without hidden files and what operating systems leave behind.

    Raises
    ------
    InputError
        The folder cannot be listed, or a name in it is not UTF-8: reports and hashes could not hold it.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    kept = [e for e in entries if not e.name.startswith((".", "~")) and e.name.lower() not in _IGNORED]
    for entry in kept:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder}: the name {entry.name!a} is not UTF-8: rename it") from None
    return sorted(kept, key=lambda entry: natural(entry.name))


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Sort key that puts ``slice2`` before ``slice10``; equal numbers written differently stay apart."""
    parts = re.split(r"(\d+)", text)
    return (*((int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts), (-1, text))


def child(folder: Path, name: str) -> Path | None:
    """The sub-folder called ``name`` in any case (``mr``, ``MR``), or None."""
    for entry in visible(folder):
        if entry.name.lower() == name and entry.is_dir():
            return entry
    return None


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, and how many more there are: for messages."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
