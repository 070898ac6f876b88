"""Where DICOM slices lie in space, and which MR and CT slice lie over each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sccg_runtime.dicom.geometry import arrange, echo_times_ms
from sccg_runtime.dicom.header import Header
from sccg_runtime.dicom.series import unfit
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Modality

POSITION_TOLERANCE_MM = 0.5
_SAME = 1e-3
_AXIAL = 0.8  # cosine: turned in its plane by up to 37 degrees


@dataclass(frozen=True, slots=True)
class SliceFile:
    """One DICOM file: where it lies in space, and on which grid.

    Attributes
    ----------
    position_mm
        Along the slice normal, in patient coordinates.
    corner_mm
        ImagePositionPatient.
    orientation
        ImageOrientationPatient, six direction cosines.
    spacing_mm
        (row, column) distance of pixel centres.
    size
        (rows, columns).
    """

    path: Path
    frame_of_reference: str
    position_mm: float
    corner_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DicomCase:
    """Slice name -> file, per modality, from the lowest slice up."""

    mr: dict[str, SliceFile]
    ct: dict[str, SliceFile]


def ordered(headers: list[Header], folder: Path, modality: Modality) -> list[SliceFile]:
    """Files of one series from the lowest position up.

    Raises
    ------
    InputError
        They are no acquired, axial slices on one grid, as sccg-runtime sees it; slices may be missing.
    """
    if not headers:
        return []
    if (count := len({header.series_uid for header in headers})) > 1:
        raise InputError(f"{folder}: {count} {modality} series; keep one {modality} series per case")
    if why := unfit(headers, modality):
        raise InputError(f"{folder}: {why}; take acquired, axial {modality} slices")
    if len({header.position_mm for header in headers}) < len(headers) and len(times := echo_times_ms(headers)) > 1:
        shown = ", ".join(f"{time:g}" for time in times)
        raise InputError(f"{folder}: one {modality} series of several echoes ({shown} ms); keep the images of one")
    series = arrange(headers, allow_gaps=True)
    files = []
    for header in series.headers:
        assert header.position_mm is not None  # noqa: S101  (arrange refuses what lacks it)
        assert header.orientation is not None  # noqa: S101
        files.append(
            SliceFile(
                path=Path(header.entry.name),
                frame_of_reference=header.frame_of_reference_uid,
                position_mm=float(np.dot(series.normal, header.position_mm)),
                corner_mm=header.position_mm,
                orientation=header.orientation,
                spacing_mm=series.spacing_mm,
                size=series.size,
            )
        )
        _check_axial(files[-1])
    return files


def check_one_grid(first: SliceFile, other: SliceFile, folder: Path) -> None:
    """Refuse an MR and a CT file that do not share frame of reference, matrix, spacing and orientation (InputError)."""
    pair = f"{first.path.parent.name}/{first.path.name} and {other.path.parent.name}/{other.path.name}"
    if not first.frame_of_reference or first.frame_of_reference != other.frame_of_reference:
        raise InputError(f"{folder}: {pair} do not share a frame of reference; register one series to the other first")
    if first.size != other.size:
        sizes = f"{first.size[0]}x{first.size[1]} and {other.size[0]}x{other.size[1]}"
        raise InputError(f"{folder}: {pair} are {sizes} pixels; resample one series onto the other's grid")
    if not np.allclose(first.spacing_mm, other.spacing_mm, rtol=_SAME, atol=0):
        raise InputError(f"{folder}: {pair} differ in pixel spacing; resample one series onto the other's grid")
    if not np.allclose(first.orientation, other.orientation, rtol=0, atol=_SAME):
        raise InputError(f"{folder}: {pair} differ in orientation; resample one series onto the other's grid")


def _check_axial(file: SliceFile) -> None:
    if file.orientation[0] < _AXIAL or file.orientation[4] < _AXIAL:
        raise InputError(f"{file.path}: not an axial slice with the patient's right on the left; resample the series")


def _check_overlay(mr: SliceFile, ct: SliceFile) -> None:
    """Refuse slices of one level that do not lie over each other (a tilted gantry shifts both alike)."""
    normal = np.cross(mr.orientation[:3], mr.orientation[3:])
    apart = np.subtract(ct.corner_mm, mr.corner_mm)
    apart = float(np.linalg.norm(apart - normal * np.dot(normal, apart)))
    if apart > POSITION_TOLERANCE_MM:
        raise InputError(
            f"{ct.path}: lies {apart:.1f} mm beside mr/{mr.path.name} in its plane; resample one series onto the other"
        )


def by_level(mr: list[SliceFile], ct: list[SliceFile]) -> DicomCase:
    """Give slices at one position one name: within 0.5 mm, and less than half of what a series' neighbours lie apart.

    So no two slices of one series get the same.
    """
    apart = [np.diff([file.position_mm for file in files]).min() for files in (mr, ct) if len(files) > 1]
    tolerance = min([POSITION_TOLERANCE_MM, *(0.49 * float(step) for step in apart)])
    positions: list[float] = []
    for position in sorted(file.position_mm for file in (*mr, *ct)):
        if not positions or position - positions[-1] > tolerance:
            positions.append(position)
    levels = np.array(positions)

    def named(files: list[SliceFile]) -> dict[str, SliceFile]:
        return {f"{int(np.abs(levels - file.position_mm).argmin()) + 1:04d}": file for file in files}

    case = DicomCase(named(mr), named(ct))
    for name in case.mr.keys() & case.ct.keys():
        _check_overlay(case.mr[name], case.ct[name])
    return case
