"""From modality values of one series to the [-1, 1] that a contract's network takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sccg_runtime.contract import Contract
from sccg_runtime.dicom.header import Header
from sccg_runtime.dicom.pixels import StoredHistogram
from sccg_runtime.errors import SeriesError
from sccg_runtime.intensity import FloatArray, linear_to_unit, mr_white_from_counts, window_limits

DARKEST_SHARE = 1e-3  # of the pixels, so that single ones say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Linear and the same for all slices of a series.

    Attributes
    ----------
    low, high
        The modality values (HU or MR signal) that become -1 and +1; values outside are clipped.
    note
        One sentence for DerivationDescription.
    warning
        What the user should know about the choice, or None.
    """

    low: float
    high: float
    note: str
    warning: str | None = None

    def to_unit(self, values: FloatArray) -> FloatArray:
        """Modality values (rows, columns) float32 -> [-1, 1], float32."""
        return linear_to_unit(values, self.low, self.high)


def mr_scaling(histogram: StoredHistogram, contract: Contract) -> Scaling:
    """MR: 0 and the value that the contract's percentile rule gives over the whole series.

    Raises
    ------
    InputError
        The series holds no signal; or SeriesError: it holds nothing else, not even around the head (or padding).
    """
    intensity = contract.input_intensity
    values, counts = histogram.values_and_counts()
    white = mr_white_from_counts(values, counts, intensity)
    darkest = float(values[np.searchsorted(np.cumsum(counts), DARKEST_SHARE * counts.sum())])
    if not histogram.padded and darkest > (intensity.foreground_above or 0) * white:
        raise SeriesError(
            f"no part of the MR series is dark (its darkest values lie at {darkest:.6g}, its white at {white:.6g}): "
            "where there is no signal, values must be 0; MONOCHROME1 or RescaleIntercept may have moved them"
        )
    rule = f"percentile {intensity.percentile:g} of the series' foreground on {intensity.level:g}"
    note = f"Input: MR signal 0 to {white:.6g} ({rule})."
    return Scaling(low=0.0, high=white, note=note)


def ct_scaling(headers: Sequence[Header], contract: Contract, window: tuple[float, float] | None) -> Scaling:
    """CT: the contract's window in HU; for pictures without one, ``window``, else the series' own.

    Parameters
    ----------
    headers
        Of all slices.
    contract
        Of a ``ct2mr`` bundle.
    window
        (centre, width) in HU asked for on the command line, or None.

    Raises
    ------
    SeriesError
        A window is asked for although the bundle fixes it, or none is known at all.
    """
    fixed = contract.input_intensity.window_hu
    if fixed is not None:
        if window is not None:
            raise SeriesError(
                f"this bundle fixes its input window ({fixed[0]:g} to {fixed[1]:g} HU): leave --window out"
            )
        return Scaling(low=fixed[0], high=fixed[1], note=f"Input: {fixed[0]:g} to {fixed[1]:g} HU.")
    if window is not None:
        low, high = window_limits(*window)
        return Scaling(low=low, high=high, note=f"Input: window {window[0]:g}/{window[1]:g} HU, given by the user.")
    windows = [header.window for header in headers if header.window is not None]
    if len(windows) < len(headers):
        raise SeriesError(
            "the bundle learned from windowed pictures, and neither it nor the series says which window: give --window "
            "CENTER WIDTH"
        )
    center, width = (statistics.median(pair[axis] for pair in windows) for axis in (0, 1))
    source = "the series' own window" if len(set(windows)) == 1 else "the median of the series' own windows"
    low, high = window_limits(center, width)
    return Scaling(
        low=low,
        high=high,
        note=f"Input: window {center:g}/{width:g} HU, {source}.",
        warning=f"the bundle does not know its input window; {source} was used ({center:g}/{width:g} HU): "
        "check the result, or give --window CENTER WIDTH",
    )
