"""Cases of two NIfTI volumes on one grid: ``CASE/mr.nii.gz`` with ``CASE/ct.nii.gz`` (or ``.nii``).

Axial slices, oriented as a DICOM viewer shows them: rows run from the front to the back of the patient, columns from
the patient's right to the left, slices from feet to head. NIfTI's axes run to the right, front and head (RAS), so both
in-plane axes are turned round. CT values are taken as HU. Needs nibabel (``pip install 'sccg-compress[nifti]'``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sccg_runtime.dicom.geometry import MAX_ANGLE_FROM_AXIAL_DEG, angle_from_axial_deg
from sccg_runtime.errors import InputError, MissingDependencyError
from sccg_runtime.intensity import FloatArray, Modality, linear_to_unit, mr_white
from sccg_teacher_student.data.reader import SliceNames, visible
from sccg_teacher_student.data.settings import DataSettings

GRID_TOLERANCE_MM = 0.1
_ENDINGS = (".nii.gz", ".nii")
_OTHER_UNITS = {1: "metres", 3: "micrometres"}  # of NIfTI, for lengths; 2 is mm, 0 unstated


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume as axial slices.

    Attributes
    ----------
    values
        (Z, H, W) float32: slices from feet to head, rows to the back, columns to the patient's left.
    affine
        (4, 4) float64, from voxel index of the file turned to RAS to mm in RAS.
    spacing_mm
        (row, column) distance of pixel centres.
    """

    values: FloatArray
    affine: npt.NDArray[np.float64]
    spacing_mm: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Case:
    mr: Volume | None
    ct: Volume | None
    white: float


@dataclass(frozen=True, slots=True)
class NiftiReader:
    """Reads NIfTI cases; keeps the volumes of the last case in memory.

    Attributes
    ----------
    settings
        Intensities: MR by a percentile over the whole volume, CT by a window of HU.
    only
        None for pairs; ``"MR"`` or ``"CT"`` to leave the other volume aside.
    """

    settings: DataSettings
    only: Modality | None = None
    _last: dict[Path, _Case] = field(default_factory=dict, repr=False, compare=False)

    def names(self, folder: Path) -> SliceNames:
        """Slice names: ``0001`` is the lowest."""
        counts = {name: _header(path)[0] if path else 0 for name, path in self._paths(folder).items()}
        mr, ct = (tuple(f"{k + 1:04d}" for k in range(counts[name])) for name in ("mr", "ct"))
        if mr and ct and len(mr) != len(ct):
            self._case(folder)  # refuses with both shapes
        return SliceNames(mr, ct)

    def load(self, folder: Path, name: str) -> tuple[FloatArray | None, FloatArray | None]:
        """(mr, ct) of one slice, each (1, H, W) float32 in [-1, 1], or None where that volume is not there."""
        names = self.names(folder).paired
        if name not in names:
            raise InputError(f"{folder}: no slice {name} (slices: {names[0]} to {names[-1]})")
        case, k = self._case(folder), int(name) - 1
        mr = None if case.mr is None else linear_to_unit(case.mr.values[k : k + 1], 0.0, case.white)
        if case.ct is None:
            return mr, None
        return mr, linear_to_unit(case.ct.values[k : k + 1], *self.settings.ct_window_hu(folder))

    def spacing_mm(self, folder: Path) -> tuple[float, float] | None:
        """(row, column) distance of pixel centres in mm."""
        path = next(path for path in self._paths(folder).values() if path)
        return _header(path)[1]

    def _paths(self, folder: Path) -> dict[str, Path | None]:
        wanted = ("mr", "ct") if self.only is None else (self.only.lower(),)
        return {name: _file(folder, name) if name in wanted else None for name in ("mr", "ct")}

    def _case(self, folder: Path) -> _Case:
        if folder not in self._last:
            paths = self._paths(folder)
            mr, ct = (read_volume(path) if path else None for path in (paths["mr"], paths["ct"]))
            if mr is not None and ct is not None:
                _check_one_grid(mr, ct, folder)
            try:
                white = 1.0 if mr is None else mr_white(mr.values, self.settings.mr)
            except InputError as error:
                raise InputError(f"{folder}: {error}") from None
            self._last.clear()
            self._last[folder] = _Case(mr, ct, white)
        return self._last[folder]


def read_volume(path: Path) -> Volume:
    """Read a volume as axial slices, float32 after the file's own scaling.

    Raises
    ------
    InputError
        Not NIfTI, damaged, not three-dimensional, without orientation, far from axial, or with values that are not
        finite.
    MissingDependencyError
        nibabel is not installed.
    """
    image = _opened(path)
    try:
        image = _canonical(image)
        values = np.asarray(image.dataobj, np.float32)
    except Exception as error:  # a damaged file can make nibabel raise nearly anything
        raise InputError(f"{path}: damaged NIfTI file ({type(error).__name__})") from None
    rows, columns = np.asarray(image.affine, np.float64)[:3, :2].T
    if (angle := angle_from_axial_deg((*rows, *columns))) > MAX_ANGLE_FROM_AXIAL_DEG:
        raise InputError(f"{path}: its slices lie {angle:.0f} degrees from axial; resample the volume")
    values = values.reshape(values.shape[:3])
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite")
    axial = np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0))
    return Volume(axial, np.asarray(image.affine, np.float64), _spacing(image.affine))


def holds_nifti(folder: Path, only: Modality | None = None) -> bool:
    """Whether ``folder`` has an ``mr`` or ``ct`` volume."""
    names = ("mr", "ct") if only is None else (only.lower(),)
    return any(_file(folder, name) for name in names)


def _file(folder: Path, name: str) -> Path | None:
    found = [e for e in visible(folder) if e.is_file() and e.name.lower() in tuple(name + end for end in _ENDINGS)]
    if len(found) > 1:
        raise InputError(f"{folder}: {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _opened(path: Path) -> Any:
    """The image as it lies on disk; values not read yet."""
    try:
        import nibabel
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading NIfTI needs nibabel; pip install 'sccg-compress[nifti]'"
        ) from None
    try:
        image: Any = nibabel.load(path)
        shape, codes = image.shape, (int(image.header["sform_code"]), int(image.header["qform_code"]))
        unit = _OTHER_UNITS.get(int(image.header["xyzt_units"]) % 8)
    except Exception as error:  # as above
        raise InputError(f"{path}: not a NIfTI file, or damaged ({type(error).__name__})") from None
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: has shape {'x'.join(map(str, shape))}; a single volume is needed")
    if unit is not None:
        raise InputError(f"{path}: states lengths in {unit}, not in mm")
    if not any(codes):
        raise InputError(f"{path}: states no orientation (sform and qform codes are 0), so left and right are unknown")
    return image


def _canonical(image: Any) -> Any:
    """The image with its axes turned to the nearest of right, front, head; reads all values where that turns any."""
    import nibabel

    return cast(Any, nibabel.as_closest_canonical)(image)


def _header(path: Path) -> tuple[int, tuple[float, float]]:
    """Number of axial slices, and (row, column) spacing in mm, without reading values."""
    image = _opened(path)  # says what to install where nibabel is not there
    import nibabel

    orientation = cast(Any, nibabel.io_orientation)
    try:
        axes = [int(axis) for axis in np.argsort(orientation(image.affine)[:, 0])]  # right, front, head
    except np.linalg.LinAlgError:
        raise InputError(f"{path}: its axes have no direction") from None
    return int(image.shape[axes[2]]), _spacing(np.asarray(image.affine)[:, [*axes, 3]])


def _spacing(affine: npt.NDArray[np.float64]) -> tuple[float, float]:
    sizes = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    return float(sizes[1]), float(sizes[0])


def _check_one_grid(mr: Volume, ct: Volume, folder: Path) -> None:
    """Refuse volumes whose corners lie apart."""
    if mr.values.shape != ct.values.shape:
        shapes = " and ".join("x".join(map(str, v.values.shape)) for v in (mr, ct))
        raise InputError(f"{folder}: mr and ct have shapes {shapes}; resample one onto the other's grid")
    depth, rows, columns = mr.values.shape
    corners = np.array([(i, j, k, 1) for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, depth - 1)], float)
    apart = float(np.abs(corners @ (mr.affine - ct.affine).T).max())
    if apart > GRID_TOLERANCE_MM:
        raise InputError(
            f"{folder}: the grids of mr and ct lie up to {apart:.1f} mm apart; resample one onto the other"
        )
