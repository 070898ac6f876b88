"""Does a series look like what the model learned from? A model answers anything; this says when not to ask it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sccg_runtime.statistics import HISTOGRAM_BINS, InputStatistics, Range

MAX_HISTOGRAM_DISTANCE = 25.0
MARGIN = 0.25
BACKGROUND_MARGIN = 0.25
MAX_TURN_DEG = 30.0
_GREY_LEVELS_PER_BIN = 256 / HISTOGRAM_BINS


def histogram_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Earth mover's distance of two histograms over [-1, 1], in grey levels of 0..255.

    How far, on average, a pixel's grey level must move to turn one into the other.
    """
    return float(np.abs(np.cumsum(first) - np.cumsum(second)).sum()) * _GREY_LEVELS_PER_BIN


def differences(series: InputStatistics, trained: InputStatistics) -> list[str]:
    """What sets a series apart from the training inputs, one sentence with numbers each; empty if nothing does.

    - Grey levels of the foreground: an earth mover's distance above 25 of 255 levels. (Seven patients of one data set,
      each left out in turn, lay 2 to 20 from the others; CT in the place of MR 74.)
    - Sharpness and foreground share: the series' median outside of the 5th to 95th percentile of the training slices,
      widened by a quarter of the nearer bound.
    - Background: the same of its mean grey level, widened by a quarter of a grey level more, as black may be all that
      the network has seen. (Of twenty patients with MR of one collection, eighteen have medians of 0.2 to 1.1; the two
      with 1.6 and 4.6 are unlike the slices of six of those, and a teacher drew bone into their air.)
    """
    found = []
    distance = histogram_distance(series.histogram, trained.histogram)
    if distance > MAX_HISTOGRAM_DISTANCE:
        found.append(
            f"grey levels are {distance:.1f} of 255 away from those of the training slices (at most "
            f"{MAX_HISTOGRAM_DISTANCE:.0f} is usual): another contrast or another window than the model learned from"
        )
    for name, here, there, hint in (
        ("sharpness", series.sharpness, trained.sharpness, "another resolution, filter or noise"),
        ("foreground share", series.foreground_share, trained.foreground_share, "another field of view or body part"),
    ):
        if not _within(here.median, there):
            found.append(
                f"{name} is {here.median:.3f}, in the training slices {there.p5:.3f} to {there.p95:.3f}: "
                f"{hint} than the model learned from"
            )
    seen, usual = series.background, trained.background
    if seen is not None and usual is not None and not _within(seen.median, usual, BACKGROUND_MARGIN):
        found.append(
            f"background is {seen.median:.3f} of 255, in the training slices {usual.p5:.3f} to {usual.p95:.3f}: "
            "ghosts, noise or masking outside of the head other than the model learned from"
        )
    return found


def turned(orientation: Sequence[float]) -> list[str]:
    """A sentence if slices are turned or mirrored in their plane against the usual axial view, from right to left and
    from front to back, which networks learn from; empty if not.

    Parameters
    ----------
    orientation
        ImageOrientationPatient (0020,0037): direction along a row, then along a column (LPS).
    """
    angles = [math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) for cosine in (orientation[0], orientation[4])]
    if max(angles) <= MAX_TURN_DEG:
        return []
    return [
        f"rows run {angles[0]:.0f} and columns {angles[1]:.0f} degrees from the usual axial view (at most "
        f"{MAX_TURN_DEG:.0f}): turned or mirrored slices, or a patient who lies face down or on the side"
    ]


def empty_slices(foreground_shares: Sequence[float], names: Sequence[str]) -> list[str]:
    """A sentence if slices hold nothing at all, with the first one's name; empty if all hold something.

    Parameters
    ----------
    foreground_shares
        Per slice, as :func:`sccg_runtime.statistics.slice_statistics` gives it.
    names
        Of the slices' files.
    """
    empty = [name for share, name in zip(foreground_shares, names, strict=True) if share == 0]
    return [f"{len(empty)} of {len(names)} slices are empty (first: {empty[0]})"] if empty else []


def _within(value: float, usual: Range, slack: float = 0.0) -> bool:
    return usual.p5 * (1 - MARGIN) - slack <= value <= usual.p95 * (1 + MARGIN) + slack
