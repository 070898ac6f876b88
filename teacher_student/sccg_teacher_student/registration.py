"""Rigid refinement of a pair: what is left of misalignment, a few pixels and degrees, found by mutual information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize
from skimage.metrics import normalized_mutual_information

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.augment import moved

LARGEST_DEG = 3.0
LARGEST_PX = 6.0
_BINS = 48
_STEP_DEG, _STEP_PX = 1.0, 2.0
_LEAST_GAIN = 1e-3  # of normalised mutual information


@dataclass(frozen=True, slots=True)
class Rigid:
    """A turn about the centre in degrees, then a shift (rows, columns) in pixels, as in :func:`augment.moved`."""

    angle_deg: float
    shift_px: tuple[float, float]

    def apply(self, image: FloatArray) -> FloatArray:
        """``image`` (H, W) moved; outside is background."""
        return moved(image, angle_deg=self.angle_deg, shift_px=self.shift_px)


def refine(moving: FloatArray, fixed: FloatArray) -> Rigid:
    """What brings ``moving`` onto ``fixed``, (H, W) each, of any two modalities.

    Powell's method on the normalised mutual information of the slices, smoothed by one pixel, within ``LARGEST_DEG``
    and ``LARGEST_PX``. Where a slice is of one value, or what is found is hardly better, ``moving`` stays.
    """
    stay = Rigid(0.0, (0.0, 0.0))
    if np.ptp(moving) == 0 or np.ptp(fixed) == 0:
        return stay
    smooth = [ndimage.gaussian_filter(image, 1.0) for image in (moving, fixed)]

    def badness(numbers: npt.NDArray[np.float64]) -> float:
        angle_deg, rows, columns = map(float, numbers)
        there = moved(smooth[0], angle_deg=angle_deg, shift_px=(rows, columns), order=1)
        return -float(normalized_mutual_information(there, smooth[1], bins=_BINS))  # type: ignore[no-untyped-call]

    limits = [(-LARGEST_DEG, LARGEST_DEG), *[(-LARGEST_PX, LARGEST_PX)] * 2]
    start = np.diag([_STEP_DEG, _STEP_PX, _STEP_PX])
    options = {"xtol": 0.02, "ftol": 1e-4, "direc": start}
    found = optimize.minimize(badness, np.zeros(3), method="Powell", bounds=limits, options=options)
    if badness(np.zeros(3)) - found.fun < _LEAST_GAIN:
        return stay
    angle_deg, rows, columns = map(float, found.x)
    return Rigid(angle_deg, (rows, columns))
