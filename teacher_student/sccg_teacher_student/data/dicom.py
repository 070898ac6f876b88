"""Cases of two DICOM series: ``CASE/mr/*.dcm`` with ``CASE/ct/*.dcm``, or both mixed in ``CASE/``.

Slices are paired by their position along the slice normal. Both series must share one frame of reference, orientation,
matrix and pixel spacing: this reader pairs, it does not register or resample.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread

from sccg_runtime.dicom.header import Header, read_header
from sccg_runtime.dicom.pixels import plane_of
from sccg_runtime.dicom.source import file_entry
from sccg_runtime.errors import InputError, one_line
from sccg_runtime.intensity import FloatArray, Modality, linear_to_unit, mr_white
from sccg_teacher_student.data.dicom_grid import DicomCase, SliceFile, by_level, check_one_grid, ordered
from sccg_teacher_student.data.reader import SliceNames, child, some, visible
from sccg_teacher_student.data.settings import DataSettings

_SUFFIXES = (".dcm", ".dicom", ".ima", "")


@dataclass(frozen=True, slots=True)
class DicomReader:
    """Reads DICOM cases.

    Attributes
    ----------
    settings
        Intensities: MR by a percentile over the whole series, CT by a window of HU.
    only
        None for pairs; ``"MR"`` or ``"CT"`` to leave the other series of a case aside.
    """

    settings: DataSettings
    only: Modality | None = None
    _cases: dict[Path, DicomCase] = field(default_factory=dict, repr=False, compare=False)
    _white: dict[Path, float] = field(default_factory=dict, repr=False, compare=False)

    def names(self, folder: Path) -> SliceNames:
        """Slice names: positions along the normal, ``0001`` lowest; slices at one position share a name.

        Raises
        ------
        InputError
            A file is damaged, or the two series do not lie on one grid.
        """
        case = self._case(folder)
        return SliceNames(tuple(case.mr), tuple(case.ct))

    def load(self, folder: Path, name: str) -> tuple[FloatArray | None, FloatArray | None]:
        """(mr, ct) of one slice, each (1, H, W) float32 in [-1, 1], or None where that series has no such slice."""
        case = self._case(folder)
        if name not in case.mr and name not in case.ct:
            raise InputError(f"{folder}: no slice {name} (slices: {some(dict.fromkeys((*case.mr, *case.ct)))})")
        mr = ct = None
        if name in case.mr:
            if folder not in self._white:
                stored = (read_slice(file, "MR") for file in case.mr.values())
                try:
                    self._white[folder] = mr_white(stored, self.settings.mr)
                except InputError as error:
                    raise InputError(f"{folder}: {error}") from None
            mr = linear_to_unit(read_slice(case.mr[name], "MR"), 0.0, self._white[folder])[np.newaxis]
        if name in case.ct:
            window = self.settings.ct_window_hu(folder)
            ct = linear_to_unit(read_slice(case.ct[name], "CT"), *window)[np.newaxis]
        return mr, ct

    def spacing_mm(self, folder: Path) -> tuple[float, float] | None:
        """(row, column) distance of pixel centres in mm."""
        case = self._case(folder)
        return next(iter((case.mr or case.ct).values())).spacing_mm

    def _case(self, folder: Path) -> DicomCase:
        if folder not in self._cases:
            self._cases[folder] = _index(folder, self.only)
        return self._cases[folder]


def read_slice(file: SliceFile, modality: Modality) -> FloatArray:
    """Pixels of one file as the clinic's runtime reads them, (H, W) float32.

    HU for CT, with padding at -1024; MR's signal, with padding at 0 and MONOCHROME1 turned over.

    Raises
    ------
    InputError
        The file is damaged, not grey, without a unit (CT), or compressed in a way that no installed decoder reads.
    """
    try:
        dataset = dcmread(file.path)
    except Exception as error:  # a damaged file can make pydicom raise nearly anything
        raise InputError(f"{file.path}: damaged DICOM file ({one_line(error)})") from None
    return plane_of(str(file.path), dataset, modality, file.size).values()


def holds_dicom(folder: Path) -> bool:
    """Whether a file in ``folder`` is DICOM; only those whose names allow it are opened."""
    return any(_is_dicom(entry) for entry in visible(folder) if entry.is_file() and _could_be(entry))


def _could_be(entry: Path) -> bool:
    return entry.suffix.lower() in _SUFFIXES or entry.suffix[1:].isdecimal()  # names like 1.2.840.113.7


def _is_dicom(entry: Path) -> bool:
    try:
        with entry.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _index(folder: Path, only: Modality | None) -> DicomCase:
    places = [place for name in ("mr", "ct") if (place := child(folder, name)) is not None] or [folder]
    found: dict[str, list[Header]] = {"MR": [], "CT": []}
    for place in places:
        for path in visible(place):
            if not path.is_file() or not _could_be(path):
                continue
            header = read_header(replace(file_entry(path), name=str(path)))  # messages shall say which folder
            if header is None:
                raise InputError(f"{path}: not a DICOM file; take it out of the series")
            modality = header.modality
            if place != folder and modality != place.name.upper():
                raise InputError(f"{path}: modality {modality or 'unknown'} in folder {place.name}/")
            if modality not in found:
                raise InputError(f"{path}: modality {modality or 'unknown'} is neither MR nor CT; take it away")
            if only in (None, modality):
                found[modality].append(header)
    mr, ct = ordered(found["MR"], folder, "MR"), ordered(found["CT"], folder, "CT")
    if mr and ct:
        check_one_grid(mr[0], ct[0], folder)
    return by_level(mr, ct)
