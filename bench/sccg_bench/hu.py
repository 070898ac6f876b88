"""SynthRAD-style figures in Hounsfield units, on volumes; only for data whose CT intensity is of kind ``hu``.

Source: METRICS "SynthRAD-style"; the SynthRAD2023 challenge's image metrics. Beside the paper's, never instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from sccg_bench.masks import BONE_HU, SOFT_HU, head_mask
from sccg_bench.metrics import psnr_db
from sccg_bench.scale import to_u8
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Intensity, unit_to_linear

LOW_HU, HIGH_HU = -1024.0, 3000.0
SEEN_HU = (-1000.0, 1000.0)
"""What a window must hold at least, so that errors in air and in bone can be seen."""
RANGE_HU = HIGH_HU - LOW_HU
SSIM_WINDOW = 7
Volume = npt.NDArray[np.float64]


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


def hu_scores(output: FloatArray, reference: FloatArray, ct: Intensity) -> HuScores:
    """Compare a synthetic CT volume with the real one.

    Parameters
    ----------
    output, reference
        (Z, H, W) in [-1, 1], slices in order.
    ct
        Of kind ``hu``; its window gives the Hounsfield units. What the window cut off is lost on both sides.

    Raises
    ------
    InputError
        The intensity has no Hounsfield units, or the volumes differ in shape.
    """
    if ct.kind != "hu" or ct.window_hu is None:
        raise InputError(f"HU figures need a CT intensity of kind hu, not {ct.kind!r}")
    if output.shape != reference.shape:
        raise InputError(f"HU figures: shapes differ, {output.shape} and {reference.shape}")
    body = np.stack([head_mask(to_u8(plane)) for plane in reference])
    first, second = (unit_to_linear(volume, *ct.window_hu).astype(np.float64) for volume in (output, reference))
    error = np.abs(first - second)
    soft, bone = second >= SOFT_HU, second >= BONE_HU
    return HuScores(
        _mean(error, body),
        *_clipped(first, second, body),
        *(_mean(error, body & tissue) for tissue in (~soft, soft & ~bone, bone)),
    )


def _mean(error: Volume, mask: npt.NDArray[np.bool_]) -> float | None:
    return float(error[mask].mean()) if mask.any() else None


def _clipped(output: Volume, reference: Volume, body: npt.NDArray[np.bool_]) -> tuple[float | None, float | None]:
    """(psnr_hu_db, ssim_hu) of volumes (Z, H, W) in HU inside ``body``; Nones where it is empty."""
    if not body.any():
        return None, None
    first, second = np.clip(output, LOW_HU, HIGH_HU), np.clip(reference, LOW_HU, HIGH_HU)
    psnr, _ = psnr_db(first[body], second[body], RANGE_HU)
    if min(output.shape) < SSIM_WINDOW:
        return psnr, None
    first, second = (np.where(body, volume, LOW_HU) - LOW_HU for volume in (first, second))
    _, full = structural_similarity(  # type: ignore[no-untyped-call]
        first, second, data_range=RANGE_HU, win_size=SSIM_WINDOW, full=True
    )
    return psnr, float(full[body].mean())
