"""Where figures are taken: head, air, soft tissue, bone. SciPy's morphology on the ``u8`` scale; never an exception."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import isotropic_dilation

from sccg_bench.scale import Image, Mask, hu_to_u8
from sccg_runtime.intensity import Intensity

HEAD_MARGIN_PX = 3
BONE_U8 = 200.0
SOFT_U8 = 60.0
_ROUNDING_HU = 0.01  # slices are float32: a voxel of 250 HU may come out a thousandth below that
BONE_HU = 250.0 - _ROUNDING_HU
SOFT_HU = -150.0 - _ROUNDING_HU


@dataclass(frozen=True, slots=True)
class TissueLevels:
    """CT levels on the ``u8`` scale: soft tissue is ``soft <= value < bone``, bone is ``value >= bone``.

    A display window has no unit, so fixed grey levels stand in (60 and 200 of 255: fat and water lie above 60 in any
    brain window, bone saturates). In HU they are -150 (below fat) and 250 (METRICS).
    """

    soft: float = SOFT_U8
    bone: float = BONE_U8

    @classmethod
    def of(cls, ct: Intensity | None) -> TissueLevels:
        """Levels for CT slices of this intensity; None and ``display`` give the grey levels."""
        window = ct.window_hu if ct is not None and ct.kind == "hu" else None
        return cls() if window is None else cls(hu_to_u8(SOFT_HU, window), hu_to_u8(BONE_HU, window))


def otsu_level(image: Image) -> float | None:
    """Otsu's threshold of a slice (scikit-image, 256 bins), or None where the slice is constant or not finite."""
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)) or high - low <= 1e-6:
        return None
    return float(threshold_otsu(image))  # type: ignore[no-untyped-call]


def foreground(image: Image, level: float | None) -> Mask:
    """Largest connected part (4 neighbours) above ``level``, holes filled.

    Parameters
    ----------
    image
        (H, W), scale ``u8``.
    level
        Threshold on the same scale; None (a constant reference) gives an empty mask.

    Returns
    -------
    Mask
        (H, W) bool. Empty where nothing lies above the level.
    """
    if level is None:
        return np.zeros(image.shape, bool)
    parts, count = ndimage.label(image > level)
    if count == 0:
        return np.zeros(image.shape, bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    filled: Mask = ndimage.binary_fill_holes(parts == int(sizes.argmax()))
    return filled


def head_mask(image: Image) -> Mask:
    """Head of a slice: :func:`foreground` at its own Otsu threshold. (H, W) bool; empty for a constant slice."""
    return foreground(image, otsu_level(image))


def dilated(mask: Mask, margin_px: int = HEAD_MARGIN_PX) -> Mask:
    """The mask grown by ``margin_px`` pixels (Euclidean disc) - the mask of every ``_head`` figure."""
    if not mask.any():
        return mask
    grown: Mask = isotropic_dilation(mask, margin_px)  # type: ignore[no-untyped-call]
    return grown


def bone_mask(ct: Image, levels: TissueLevels) -> Mask:
    """Bone of a CT slice, (H, W) bool: ``u8`` value at or above the bone level. Not limited to the head."""
    mask: Mask = ct >= levels.bone
    return mask


def soft_mask(ct: Image, levels: TissueLevels, head: Mask) -> Mask:
    """Soft tissue of a CT slice, (H, W) bool: inside the head, from the soft level up to the bone level."""
    mask: Mask = head & (ct >= levels.soft) & (ct < levels.bone)
    return mask


def air_mask(ct: Image, levels: TissueLevels) -> Mask:
    """Air of a CT slice, (H, W) bool: below the soft level, around the head and inside it (sinuses)."""
    mask: Mask = ct < levels.soft
    return mask


def overlap(first: Mask, second: Mask) -> tuple[float, bool]:
    """Intersection over union, and whether the union was empty (then 1.0 by METRICS, and counted)."""
    union = int(np.count_nonzero(first | second))
    if union == 0:
        return 1.0, True
    return int(np.count_nonzero(first & second)) / union, False
