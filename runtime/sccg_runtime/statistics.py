"""What the inputs of a model looked like when it learned: kept in the contract, compared with at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

HISTOGRAM_BINS = 32
FOREGROUND_ABOVE = -0.88  # 15 of 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """5th percentile, median and 95th percentile over slices."""

    p5: float
    median: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """Statistics of the slices that a model learned from.

    Attributes
    ----------
    slices
        How many slices were looked at.
    histogram
        Shares of foreground pixels in 32 equal bins over [-1, 1], mean over slices; they sum to 1.
    sharpness
        Per slice: mean absolute difference of neighbouring pixels inside the foreground, over its standard deviation.
    foreground_share
        Per slice: share of pixels above -0.88 (15 of 255).
    background
        Per slice that has such: mean grey level (0 to 255) of the pixels that are not foreground. None where no slice
        has, and where it was not taken: earlier versions did not.
    """

    slices: int
    histogram: tuple[float, ...]
    sharpness: Range
    foreground_share: Range
    background: Range | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        values = asdict(self) | {"histogram": list(self.histogram)}
        if self.background is None:  # as earlier versions wrote it, so that their runs and bundles stay as they are
            del values["background"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputStatistics:
        """Build from JSON; a key that is missing or unknown, or no finite number, is refused (InputError)."""
        try:
            given = dict(values)
            histogram = tuple(_number(share) for share in given.pop("histogram"))
            sharpness, share = (_range(given.pop(name)) for name in ("sharpness", "foreground_share"))
            background = _range(given.pop("background")) if "background" in given else None
            slices = given.pop("slices")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"input_statistics: {type(error).__name__}: {error}") from None
        if given:
            raise InputError(f"input_statistics: unknown key {', '.join(sorted(map(str, given)))}")
        if len(histogram) != HISTOGRAM_BINS or min(histogram) < 0:
            raise InputError(f"input_statistics: histogram is not {HISTOGRAM_BINS} shares")
        if type(slices) is not int or slices < 1:
            raise InputError("input_statistics: slices is not a count")
        return cls(
            slices=slices, histogram=histogram, sharpness=sharpness, foreground_share=share, background=background
        )


class SliceStatistics(NamedTuple):
    """Of one slice what :class:`InputStatistics` holds of many."""

    histogram: FloatArray
    sharpness: float
    foreground_share: float
    background: float | None


def _range(values: Mapping[str, Any]) -> Range:
    return Range(**{key: _number(value) for key, value in values.items()})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(float(value)):
        raise ValueError(f"{str(value)[:40]!r} is not a finite number")
    return float(value)


def slice_statistics(image: FloatArray, imaged: tuple[slice, slice] | None = None) -> SliceStatistics:
    """Statistics of one slice (1, H, W) or (H, W) in [-1, 1].

    An empty slice (no foreground) gives a histogram of zeros and sharpness 0.

    Parameters
    ----------
    image
        The slice.
    imaged
        Rows and columns that are not padding: background is taken there alone. None: all.
    """
    plane = image.reshape(image.shape[-2:])
    mask = plane > FOREGROUND_ABOVE
    share = float(mask.mean())
    around = (plane if imaged is None else plane[imaged])[~(mask if imaged is None else mask[imaged])]
    background = float((around.mean(dtype=np.float64) + 1) * 127.5) if around.size else None
    if not mask.any():
        return SliceStatistics(np.zeros(HISTOGRAM_BINS, np.float32), 0.0, share, background)
    inside = plane[mask]
    counts, _ = np.histogram(inside, bins=HISTOGRAM_BINS, range=(-1, 1))
    both = mask[:, 1:] & mask[:, :-1]
    step = float(np.abs(np.diff(plane, axis=1))[both].mean()) if both.any() else 0.0
    spread = float(inside.std())
    sharpness = step / spread if spread > 0 else 0.0
    return SliceStatistics((counts / counts.sum()).astype(np.float32), sharpness, share, background)


def input_statistics(images: Iterable[FloatArray]) -> InputStatistics:
    """Statistics over slices (1, H, W), float32 in [-1, 1].

    Raises
    ------
    InputError
        There is no slice.
    """
    return summarise([slice_statistics(image) for image in images])


def summarise(rows: Sequence[SliceStatistics]) -> InputStatistics:
    """Statistics over slices from what :func:`slice_statistics` gave for each.

    Raises
    ------
    InputError
        There is no slice.
    """
    if not rows:
        raise InputError("no slice to take input statistics from")
    histograms = [row.histogram for row in rows if row.foreground_share > 0] or [rows[0].histogram]
    mean = np.mean(histograms, axis=0)
    backgrounds = [row.background for row in rows if row.background is not None]

    def spread(values: list[float]) -> Range:
        p5, median, p95 = np.percentile(values, (5, 50, 95))
        return Range(p5=round(float(p5), 6), median=round(float(median), 6), p95=round(float(p95), 6))

    return InputStatistics(
        slices=len(rows),
        histogram=tuple(round(float(share), 6) for share in mean),
        sharpness=spread([row.sharpness for row in rows]),
        foreground_share=spread([row.foreground_share for row in rows]),
        background=spread(backgrounds) if backgrounds else None,
    )
