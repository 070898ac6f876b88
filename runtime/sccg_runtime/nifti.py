"""The derived series as one NIfTI-1 volume, written slice by slice; needs nibabel (extra ``nifti``)."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sccg_runtime import __version__
from sccg_runtime.dicom.geometry import Array, Geometry
from sccg_runtime.dicom.write import Derivation, derivation_description, series_description, stored_values
from sccg_runtime.errors import InputError, MissingDependencyError, SeriesError
from sccg_runtime.files import replacing
from sccg_runtime.intensity import FloatArray
from sccg_runtime.staging import check_earlier_file

SUFFIX = ".nii.gz"
MAX_OFFSET_MM = 0.1
_RIGHT_ANGLE = 1e-3
_COMPRESSION = 1  # about as small as 9 and many times faster
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def import_nibabel() -> Any:
    """Import ``nibabel``.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise MissingDependencyError('--format nifti needs nibabel: pip install "sccg-runtime[nifti]"') from None
    return nibabel


def affine_ras(geometry: Geometry) -> Array:
    """Voxel indices (column, row, slice) -> mm in the patient's RAS coordinates, which NIfTI counts in.

    DICOM's own are LPS (PS3.3 C.7.6.2.1.1): the first two axes change their sign. A tilted gantry gives a sheared
    matrix, as the slices lie.

    Parameters
    ----------
    geometry
        Of the source series.

    Returns
    -------
    numpy.ndarray
        (4, 4) float64.

    Raises
    ------
    SeriesError
        The slices do not lie at one distance, which is all that NIfTI can say; or there is one of unknown thickness.
    """
    first = geometry.headers[0]
    positions = np.array([header.position_mm for header in geometry.headers], np.float64)
    orientation = np.array(first.orientation, np.float64)
    count = len(positions)
    if count > 1:
        step = (positions[-1] - positions[0]) / (count - 1)
    elif first.thickness_mm:
        step = np.array(geometry.normal) * first.thickness_mm
    else:
        raise SeriesError("a single slice without SliceThickness is no NIfTI volume: leave --format nifti out")
    offset = float(np.linalg.norm(positions - positions[0] - np.outer(np.arange(count), step), axis=1).max())
    if offset > MAX_OFFSET_MM:
        raise SeriesError(
            f"the slices do not lie at one distance (a NIfTI volume would move one by {offset:.2f} mm): leave "
            "--format nifti out"
        )
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * geometry.spacing_mm[1]
    affine[:3, 1] = orientation[3:] * geometry.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return _LPS_TO_RAS @ affine


@contextlib.contextmanager
def whole_volume(
    out: Path, affine: Array, shape: tuple[int, int, int], derivation: Derivation, *, force: bool
) -> Iterator[Callable[[FloatArray], None]]:
    """Give a function that appends one slice; put the volume in the place of ``out`` when the block ends without error.

    Values are int16: HU, or levels (0 to 255) where the bundle's CT has no unit; MR is 0 to 4095. The header says that
    the image is synthetic and names the bundle; an extension holds what DerivationDescription would.

    Parameters
    ----------
    out
        ``.nii.gz`` file to make.
    affine
        From :func:`affine_ras`.
    shape
        (columns, rows, slices).
    derivation
        What made the series.
    force
        Whether a file that stands at ``out`` in the end may be replaced.

    Raises
    ------
    MissingDependencyError
        nibabel is not installed.
    InputError
        A file has come to stand at ``out`` meanwhile, or one that is not of an earlier conversion.
    """
    nibabel = import_nibabel()
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header.set_sform(affine, "scanner")
    if not _sheared(affine):  # a quaternion cannot say it
        header.set_qform(affine, "scanner")
    header["descrip"] = _descrip(derivation).encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", derivation_description(derivation).encode()))
    # No name and no time in the gzip header: nothing but the volume.
    with (
        replacing(out) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", _COMPRESSION, file, 0) as volume,
    ):
        header.write_to(volume)

        def append(output: FloatArray) -> None:
            volume.write(stored_values(output, derivation.contract).astype("<i2").tobytes())  # the column runs fastest

        yield append
        if out.exists():
            if not force:
                raise InputError(f"{out.name} has come to be meanwhile: give another name, or --force to replace it")
            check_earlier_file(out)


def _sheared(affine: Array) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max()) > _RIGHT_ANGLE


def _descrip(derivation: Derivation) -> str:
    """At most 79 characters: says SYNTHETIC first, then the version and the beginning of the bundle's SHA-256."""
    end = f"; sccg-runtime {__version__}; bundle {derivation.bundle_sha256[:12]}"
    return series_description(derivation.contract)[: 79 - len(end)] + end
