"""The grey scale that every ``u8`` figure is on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sccg_runtime.intensity import FloatArray

Image = npt.NDArray[np.float64]
"""One slice (H, W), float64, on the ``u8`` scale unless said otherwise."""
Mask = npt.NDArray[np.bool_]
"""(H, W) bool, True inside."""


def to_u8(image: FloatArray) -> Image:
    """Map a slice from [-1, 1] linearly onto [0, 255]; neither rounded nor clipped (METRICS "Scales").

    Parameters
    ----------
    image
        (1, H, W) or (H, W) in [-1, 1].

    Returns
    -------
    Image
        (H, W) float64; -1 is 0, +1 is 255.

    Example
    -------
    >>> to_u8(np.zeros((1, 1, 2), np.float32))
    array([[127.5, 127.5]])
    """
    plane = image[0] if image.ndim == 3 else image
    scaled: Image = (plane.astype(np.float64) + 1.0) * 127.5
    return scaled


def hu_to_u8(value_hu: float, window_hu: tuple[float, float]) -> float:
    """Where a Hounsfield value lies on the ``u8`` scale of a window (low, high) in HU; may lie outside [0, 255]."""
    low, high = window_hu
    return (value_hu - low) / (high - low) * 255.0
