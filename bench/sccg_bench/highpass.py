"""Fine detail: what a slice holds above a quarter of the Nyquist frequency, inside the head.

A blurred picture gains PSNR against a weak reference; here it cannot hide. ``hf_ratio`` asks for the amount of
detail, ``hf_corr`` for its place, ``phase_ratio`` for a pattern that repeats with the network's stride.
"""

from __future__ import annotations

import numpy as np

from sccg_bench.scale import Image, Mask

CUTOFF_CYCLES_PER_PX = 0.125
"""A quarter of the Nyquist frequency (0.5 cycles per pixel)."""
PHASES = 4
MOST_UNEVEN = 1000.0
"""``phase_ratio`` of a difference on some pixel phases alone."""
_TINY = 1e-12


def high_pass(image: Image) -> Image:
    """The part of a slice above :data:`CUTOFF_CYCLES_PER_PX`, by an ideal radial mask on its Fourier transform.

    Parameters
    ----------
    image
        (H, W), any scale. The border wraps around, which does no harm where it is air.

    Returns
    -------
    Image
        (H, W), the same scale, mean 0.
    """
    rows, columns = image.shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    spectrum = np.fft.rfft2(image)
    spectrum[frequency <= CUTOFF_CYCLES_PER_PX] = 0
    passed: Image = np.fft.irfft2(spectrum, s=image.shape)
    return passed


def energy_ratio(band: Image, other_band: Image, mask: Mask) -> float | None:
    """``hf_ratio``: energy (sum of squares) of one high-pass band over another's, both inside ``mask``.

    None where the mask is empty or the other band holds nothing.
    """
    below = float(np.square(other_band[mask]).sum())
    if below <= _TINY * max(1, int(np.count_nonzero(mask))):
        return None
    return float(np.square(band[mask]).sum()) / below


def correlation(band: Image, other_band: Image, mask: Mask) -> float | None:
    """``hf_corr``: Pearson correlation of two high-pass bands inside ``mask``.

    None where the other band does not vary; 0 where only ``band`` does not: its detail is nowhere.
    """
    first, second = band[mask], other_band[mask]
    if first.size < 2:
        return None
    first, second = first - first.mean(), second - second.mean()
    energy, other_energy = (float(np.square(each).sum()) for each in (first, second))
    if other_energy <= _TINY * second.size:
        return None
    return float((first * second).sum()) / np.sqrt(energy * other_energy) if energy > _TINY * first.size else 0.0


def phase_ratio(image: Image, other: Image) -> float | None:
    """Mean absolute difference on each of the 16 pixel phases of a 4x4 grid: the largest over the smallest.

    About 1 where errors know nothing of the grid; large for checkerboards of strided networks, cut off at
    :data:`MOST_UNEVEN`. Whole slice, scale free. None where there is no difference, or the slice is smaller than 4x4.
    """
    error = np.abs(image - other)
    if min(error.shape) < PHASES:
        return None
    means = [float(error[row::PHASES, column::PHASES].mean()) for row in range(PHASES) for column in range(PHASES)]
    return None if max(means) <= _TINY else max(means) / max(min(means), max(means) / MOST_UNEVEN)
