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
    """Give an MR and a CT slice at one level one name: those nearest to each other first, up to 0.5 mm apart.

    Every slice has a name of its own or shares it with one of the other series, however thin slices are.
    """
    near = sorted(
        (round(abs(one.position_mm - other.position_mm), 3), index, number)
        for index, one in enumerate(mr)
        for number, other in enumerate(ct)
        if abs(one.position_mm - other.position_mm) <= POSITION_TOLERANCE_MM
    )
    partner: dict[int, int] = {}
    for _, index, number in near:
        if index not in partner and number not in partner.values():
            partner[index] = number
    levels: list[tuple[float, SliceFile | None, SliceFile | None]] = [
        (file.position_mm, file, ct[partner[index]] if index in partner else None) for index, file in enumerate(mr)
    ]
    alone = set(range(len(ct))) - set(partner.values())
    levels += [(ct[number].position_mm, None, ct[number]) for number in alone]
    named = [(f"{number:04d}", *level[1:]) for number, level in enumerate(sorted(levels, key=lambda one: one[0]), 1)]
    case = DicomCase(
        {name: one for name, one, _ in named if one is not None},
        {name: other for name, _, other in named if other is not None},
    )
    for name in case.mr.keys() & case.ct.keys():
        _check_overlay(case.mr[name], case.ct[name])
    return case
