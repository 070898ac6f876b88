"""SynthRAD-style figures in Hounsfield units, on volumes; only for data whose CT intensity is of kind ``hu``.

Source: METRICS "SynthRAD-style"; the SynthRAD2023 challenge's image metrics. Beside the paper's, never instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from sccg_bench.masks import BONE_HU, SOFT_HU, head_mask
from sccg_bench.metrics import psnr_of_mse_db
from sccg_bench.scale import Image, Mask, to_u8
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Intensity, unit_to_linear

LOW_HU, HIGH_HU = -1024.0, 3000.0
SEEN_HU = (-1000.0, 1000.0)
"""What a window must hold at least, so that errors in air and in bone can be seen."""
RANGE_HU = HIGH_HU - LOW_HU
SSIM_WINDOW = 7
SLAB_PLANES = 8
"""SSIM is computed of so many planes at once, or some fewer, so that memory does not grow with the volume."""


@dataclass(frozen=True, slots=True)
class HuScores:
    """Of one patient's volume, inside the body mask.

    Attributes
    ----------
    mae_hu
        Mean absolute error, not clipped.
    psnr_hu_db
        Clipped to [-1024, 3000] HU, R = 4024, cut off at 100 dB.
    ssim_hu
        3-D, 7-voxel window; None where a side of the volume is below 7 (a series of few slices).
    mae_air_hu, mae_soft_hu, mae_bone_hu
        ``mae_hu`` of the voxels whose reference lies below -150 HU, from there below 250 HU, and from 250 HU on.
    """

    mae_hu: float | None
    psnr_hu_db: float | None
    ssim_hu: float | None
    mae_air_hu: float | None
    mae_soft_hu: float | None
    mae_bone_hu: float | None

    def to_dict(self) -> dict[str, float | None]:
        """JSON form."""
        return asdict(self)


def sees_air_and_bone(ct: Intensity) -> bool:
    """Whether a CT intensity is in HU and its window wide enough (:data:`SEEN_HU`) for figures that hide nothing."""
    window = ct.window_hu if ct.kind == "hu" else None
    return window is not None and window[0] <= SEEN_HU[0] and window[1] >= SEEN_HU[1]


class _Mean:
    """Mean of values that come in parts; None before the first."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        self._sum += float(values.sum())
        self._count += values.size

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def hu_scores(output: Sequence[FloatArray], reference: Sequence[FloatArray], ct: Intensity) -> HuScores:
    """Compare a synthetic CT volume with the real one.

    Parameters
    ----------
    output, reference
        Planes (H, W) in [-1, 1], in order and of one size.
    ct
        Of kind ``hu``; its window gives the Hounsfield units. What the window cut off is lost on both sides.

    Raises
    ------
    InputError
        The intensity has no Hounsfield units, or the volumes differ in shape.
    """
    if ct.kind != "hu" or (window := ct.window_hu) is None:
        raise InputError(f"HU figures need a CT intensity of kind hu, not {ct.kind!r}")
    shapes = [(len(volume), *volume[0].shape) for volume in (output, reference)]
    if shapes[0] != shapes[1]:
        raise InputError(f"HU figures: shapes differ, {shapes[0]} and {shapes[1]}")
    body = [head_mask(to_u8(plane)) for plane in reference]
    whole, air, soft, bone, squared = (_Mean() for _ in range(5))
    for made, real, inside in zip(output, reference, body, strict=True):
        first, second = (_in_hu(plane, window)[inside] for plane in (made, real))
        error = np.abs(first - second)
        is_soft, is_bone = second >= SOFT_HU, second >= BONE_HU
        whole.add(error)
        air.add(error[~is_soft])
        soft.add(error[is_soft & ~is_bone])
        bone.add(error[is_bone])
        squared.add(np.square(_clipped(first) - _clipped(second)))
    return HuScores(
        mae_hu=whole.value,
        psnr_hu_db=None if squared.value is None else psnr_of_mse_db(squared.value, RANGE_HU)[0],
        ssim_hu=_ssim(output, reference, body, window),
        mae_air_hu=air.value,
        mae_soft_hu=soft.value,
        mae_bone_hu=bone.value,
    )


def _ssim(
    output: Sequence[FloatArray], reference: Sequence[FloatArray], body: Sequence[Mask], window: tuple[float, float]
) -> float | None:
    """Masked mean of the volume's SSIM map, slab by slab: each with the planes beside it that its windows reach."""
    depth = len(body)
    if min(depth, *body[0].shape) < SSIM_WINDOW:
        return None
    found, reach = _Mean(), SSIM_WINDOW // 2
    for planes in np.array_split(np.arange(depth), -(-depth // SLAB_PLANES)):
        first, end = int(planes[0]), int(planes[-1]) + 1
        if not any(inside.any() for inside in body[first:end]):
            continue
        low, high = max(0, first - reach), min(depth, end + reach)  # a window or more: no part has fewer than 4 planes
        slabs = (
            np.stack([_in_air(volume[index], body[index], window) for index in range(low, high)])
            for volume in (output, reference)
        )
        _, full = structural_similarity(  # type: ignore[no-untyped-call]
            *slabs, data_range=RANGE_HU, win_size=SSIM_WINDOW, full=True
        )
        for index in range(first, end):
            found.add(full[index - low][body[index]])
    return found.value


def _in_hu(plane: FloatArray, window: tuple[float, float]) -> Image:
    return unit_to_linear(plane, *window).astype(np.float64)


def _clipped(values_hu: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.clip(values_hu, LOW_HU, HIGH_HU)


def _in_air(plane: FloatArray, inside: Mask, window: tuple[float, float]) -> Image:
    """A plane in HU above air, clipped, and air outside the body."""
    return np.where(inside, _clipped(_in_hu(plane, window)) - LOW_HU, 0.0)
