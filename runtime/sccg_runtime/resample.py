"""In-plane resampling between a source grid and the scale that a generator learned at.

Sampling convention: a pixel is an area. A plane of n pixels covers [0, n) in pixel units, pixel i covers [i, i + 1),
and both grids cover the same rectangle of the patient, edge on edge. So pixel centres do not drift when the number of
pixels changes, and an output that is resampled back overlays its source exactly.

Filter: bicubic (a = -0.5) through Pillow's float mode ``F``, whose support grows with the reduction, so that it
low-passes where it shrinks. Bilinear blurs the way back up; Lanczos rings further. Bicubic's ringing at edges is cut by
clipping to [-1, 1], the range that both networks and intensities use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sccg_runtime.contract import Contract
from sccg_runtime.errors import SeriesError
from sccg_runtime.intensity import FloatArray

BACKGROUND = np.float32(-1.0)
MAX_SIDE = 4096
MAX_PADDING_AREA = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlanePlan:
    """How planes of one series go to the network and back.

    Attributes
    ----------
    source_size
        (rows, columns) of the source grid.
    inner_size
        (rows, columns) that the whole source plane is resampled to: the trained scale.
    run_size
        (rows, columns) that the network runs at: ``inner_size`` padded with background, a multiple of the stride.
    offset
        (row, column) of the inner plane's first pixel inside the run plane.
    inner_spacing_mm
        (row, column) pixel spacing of the inner plane.
    scale_known
        False where the contract knows no trained spacing and the whole slice was fitted to the trained size.
    """

    source_size: tuple[int, int]
    inner_size: tuple[int, int]
    run_size: tuple[int, int]
    offset: tuple[int, int]
    inner_spacing_mm: tuple[float, float]
    scale_known: bool

    def to_run(self, plane: FloatArray) -> FloatArray:
        """Source plane (rows, columns) in [-1, 1] -> network input (1, H, W) float32 in [-1, 1]."""
        if plane.shape != self.source_size:
            raise SeriesError(f"a plane of {plane.shape} pixels does not fit the plan for {self.source_size}")
        run = np.full((1, *self.run_size), BACKGROUND, np.float32)
        run[0][self.inner] = resize(plane, self.inner_size)
        return run

    def to_source(self, output: FloatArray) -> FloatArray:
        """Network output (1, H, W) -> plane (rows, columns) on the source grid, float32 in [-1, 1]."""
        return resize(output[0][self.inner], self.source_size)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the run plane that hold the source's plane."""
        (top, left), (rows, columns) = self.offset, self.inner_size
        return slice(top, top + rows), slice(left, left + columns)


def plan_in_plane(
    source_size: tuple[int, int], source_spacing_mm: tuple[float, float], contract: Contract
) -> InPlanePlan:
    """Plan the way of a series' planes to the scale that the contract's network learned at.

    With a known trained spacing, the plane is resampled to that spacing (to within half a pixel over the whole plane)
    and padded. Without one, the whole plane is fitted into ``trained_size`` with its physical aspect and padded, as
    pictures of whole slices were. Nothing of the plane is ever cut off.

    Parameters
    ----------
    source_size
        (rows, columns).
    source_spacing_mm
        (row, column) pixel spacing, DICOM PixelSpacing (0028,0030).
    contract
        Of the bundle that will run.

    Raises
    ------
    SeriesError
        The plane at the trained scale has less than 8 or more than 4096 pixels on a side.
    """
    extent_mm = (source_size[0] * source_spacing_mm[0], source_size[1] * source_spacing_mm[1])
    trained = contract.trained_size
    if contract.trained_spacing_mm is not None:
        target_mm = contract.trained_spacing_mm
    else:
        pixel_mm = max(extent_mm[0] / trained[0], extent_mm[1] / trained[1])
        target_mm = (pixel_mm, pixel_mm)
    inner = (round(extent_mm[0] / target_mm[0]), round(extent_mm[1] / target_mm[1]))
    if min(inner) < 8 or max(inner) > MAX_SIDE:
        raise SeriesError(
            f"{source_size[0]}x{source_size[1]} pixels of {source_spacing_mm[0]:g}x{source_spacing_mm[1]:g} mm become "
            f"{inner[0]}x{inner[1]} at the trained scale: outside of 8 to {MAX_SIDE}"
        )
    run = _run_size(inner, contract)
    return InPlanePlan(
        source_size=source_size,
        inner_size=inner,
        run_size=run,
        offset=((run[0] - inner[0]) // 2, (run[1] - inner[1]) // 2),
        inner_spacing_mm=(extent_mm[0] / inner[0], extent_mm[1] / inner[1]),
        scale_known=contract.trained_spacing_mm is not None,
    )


def _run_size(inner: tuple[int, int], contract: Contract) -> tuple[int, int]:
    """At least the trained size, a multiple of the stride; the engine's own size where that costs little padding."""
    rows, columns = (
        -(-max(inner[axis], contract.trained_size[axis]) // contract.stride) * contract.stride for axis in (0, 1)
    )
    engine = contract.engine_size
    fits = engine[0] >= rows and engine[1] >= columns
    if fits and engine[0] * engine[1] <= MAX_PADDING_AREA * rows * columns:
        return engine
    return rows, columns


def resize(plane: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resample a plane (rows, columns) float32 to ``size`` pixels over the same area; clipped to [-1, 1].

    The same size gives the same values back, untouched by any filter.
    """
    if plane.shape == size:
        return np.clip(plane, -1, 1).astype(np.float32, copy=False)
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
    return np.clip(resized, -1, 1)
