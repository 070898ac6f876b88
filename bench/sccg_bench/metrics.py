"""Paper-style figures of one slice, as METRICS defines them. Scikit-image for PSNR and SSIM, NumPy for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.metrics import mean_squared_error, structural_similarity

from sccg_bench.scale import Image, Mask

RANGE_U8 = 255.0
CAP_DB = 100.0
SSIM_SIGMA_PX = 1.5
SSIM_WINDOW_PX = 11
WORST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close one slice is to another; the wanted figure of every comparison, scale ``u8``.

    Attributes
    ----------
    psnr_db, ssim, mae_u8
        Whole slice. ``ssim`` is None for slices smaller than its window (11 px).
    psnr_head_db, ssim_head, mae_head_u8
        Inside the head mask (dilated by 3 px); None where that is empty.
    capped
        The whole-slice PSNR was cut off at 100 dB.
    """

    psnr_db: float
    ssim: float | None
    mae_u8: float
    psnr_head_db: float | None
    ssim_head: float | None
    mae_head_u8: float | None
    capped: bool


def closeness(image: Image, other: Image, head: Mask) -> Closeness:
    """Compare ``image`` with ``other`` over the whole slice and inside ``head``.

    Parameters
    ----------
    image, other
        (H, W), scale ``u8``; ``other`` is the one that is held to be right.
    head
        (H, W) bool, already dilated; may be empty.
    """
    whole, peak_map = ssim(image, other)
    inside = bool(head.any())
    psnr, capped = psnr_db(image, other)
    return Closeness(
        psnr_db=psnr,
        ssim=whole,
        mae_u8=float(np.abs(image - other).mean()),
        psnr_head_db=psnr_db(image[head], other[head])[0] if inside else None,
        ssim_head=float(peak_map[head].mean()) if inside and peak_map is not None else None,
        mae_head_u8=mae_u8(image, other, head),
        capped=capped,
    )


def psnr_db(
    image: npt.NDArray[np.float64], other: npt.NDArray[np.float64], data_range: float = RANGE_U8
) -> tuple[float, bool]:
    """Peak signal to noise ratio in dB with R = ``data_range``, cut off at 100 dB; and whether it was cut off.

    Any shape, so that masked pixels can be given as a list.
    """
    return psnr_of_mse_db(float(mean_squared_error(other, image)), data_range)


def psnr_of_mse_db(mse: float, data_range: float = RANGE_U8) -> tuple[float, bool]:
    """:func:`psnr_db` of a mean squared error."""
    if mse <= data_range**2 * 10 ** (-CAP_DB / 10):
        return CAP_DB, True
    return float(10 * np.log10(data_range**2 / mse)), False


def ssim(image: Image, other: Image) -> tuple[float | None, Image | None]:
    """Mean structural similarity and its full map (H, W): gaussian sigma 1.5 px, population covariance, range 255.

    The mean leaves out the 5 px border (scikit-image); a masked mean is to be taken of the map. (None, None) where the
    slice is smaller than the 11 px window.

    Source: Wang et al. 2004, as implemented by scikit-image.
    """
    if min(image.shape) < SSIM_WINDOW_PX:
        return None, None
    mean, full = structural_similarity(  # type: ignore[no-untyped-call]
        other,
        image,
        data_range=RANGE_U8,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean), full


def mae_u8(image: Image, other: Image, mask: Mask) -> float | None:
    """Mean absolute error in grey levels inside ``mask``; None if it is empty."""
    return float(np.abs(image[mask] - other[mask]).mean()) if mask.any() else None


def bias_u8(image: Image, other: Image, mask: Mask) -> float | None:
    """Signed mean of ``image - other`` in grey levels inside ``mask``; positive is too bright. None if it is empty."""
    return float((image[mask] - other[mask]).mean()) if mask.any() else None


def worst_mae_u8(image: Image, other: Image, mask: Mask, share: float = WORST_SHARE) -> float | None:
    """Mean absolute error of the worst ``share`` of the masked pixels (at least one), in grey levels."""
    errors = np.abs(image[mask] - other[mask])
    if errors.size == 0:
        return None
    count = max(1, round(share * errors.size))
    return float(np.partition(errors, errors.size - count)[-count:].mean())
