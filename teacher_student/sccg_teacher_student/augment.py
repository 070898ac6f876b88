"""Changes of training pairs: MR and CT move together; grey values change on MR alone, and only where MR is input."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.views import BACKGROUND

ANGLE_DEG = 7.0
SCALE = 0.08
SHIFT = 0.04  # of the side


def moved(
    image: FloatArray,
    *,
    angle_deg: float = 0.0,
    scale: float = 1.0,
    shift_px: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
    order: int = 3,
) -> FloatArray:
    """Mirror left and right, turn and scale about the centre, then shift; outside is background.

    Parameters
    ----------
    image
        (H, W) in [-1, 1].
    angle_deg
        From the column axis towards the row axis.
    shift_px
        (rows, columns): where the centre goes.
    order
        Of the spline between pixels. Linear (1) is quick, and takes fine detail away.
    """
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag([1.0, -1.0 if flip else 1.0]) @ turn / scale
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + shift_px)
    result: FloatArray = ndimage.affine_transform(image, matrix, offset, order=order, cval=BACKGROUND)
    return result.clip(-1, 1)


def moved_together(images: list[FloatArray | None], rng: np.random.Generator) -> list[FloatArray | None]:
    """The slices of a pair, (H, W) each or None, after one and the same random flip, turn, scale and shift."""
    size = next(image.shape for image in images if image is not None)
    rows, columns = rng.uniform(-SHIFT, SHIFT, 2) * size
    angle_deg, scale, flip = rng.uniform(-ANGLE_DEG, ANGLE_DEG), rng.uniform(1 - SCALE, 1 + SCALE), rng.random() < 0.5

    def move(image: FloatArray) -> FloatArray:
        return moved(image, angle_deg=angle_deg, scale=scale, shift_px=(rows, columns), flip=bool(flip))

    return [None if image is None else move(image) for image in images]
