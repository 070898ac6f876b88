"""The largest local difference of two slices: a lesion that a small network invents or drops, which no PSNR sees."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from sccg_bench.scale import Image, Mask

SHARE = 32
"""A window's side is this part of the slice's shorter side: 8 px of 256, 16 px of 512, about 8 mm of a head."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A square window and the difference inside it.

    Attributes
    ----------
    row, column
        Its upper left pixel.
    side_px
        Its side.
    difference_u8
        Mean of ``image - other`` in it, in grey levels of 255: positive is too bright.
    """

    row: int
    column: int
    side_px: int
    difference_u8: float

    def to_dict(self) -> dict[str, float]:
        """JSON form."""
        return asdict(self)


def largest_spot(image: Image, other: Image, mask: Mask) -> Spot | None:
    """The window, wholly inside ``mask``, whose mean difference is farthest from zero; the first of equals.

    The mean is signed, so that other texture averages out and what is there in only one of the two does not.

    Parameters
    ----------
    image, other
        (H, W), scale ``u8``; ``other`` is the one that is held to be right.
    mask
        (H, W) bool. None comes back where no window fits into it.

    Example
    -------
    >>> black, grey = np.zeros((64, 64)), np.zeros((64, 64))
    >>> grey[20:24, 30:34] = 10
    >>> largest_spot(black, grey, np.ones((64, 64), bool))
    Spot(row=20, column=30, side_px=2, difference_u8=-10.0)
    """
    side = max(1, min(image.shape) // SHARE)
    fits = _window_means(mask.astype(np.float64), side) > 1 - 0.5 / side**2
    if not fits.any():
        return None
    means = _window_means(image - other, side)
    row, column = np.unravel_index(int(np.where(fits, np.abs(means), -1).argmax()), means.shape)
    return Spot(int(row), int(column), side, float(means[row, column]))


def _window_means(image: Image, side: int) -> Image:
    """(H - side + 1, W - side + 1): mean of every window, by its upper left pixel."""
    down = np.lib.stride_tricks.sliding_window_view(image, side, axis=0).mean(axis=-1)
    means: Image = np.lib.stride_tricks.sliding_window_view(down, side, axis=1).mean(axis=-1)
    return means
