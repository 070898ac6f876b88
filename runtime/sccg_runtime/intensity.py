"""From stored pixel values to the [-1, 1] scale that generators work on, and back.

Three kinds (never a per-image maximum, which would ruin HU and make slices of one series differ):

- ``percentile`` (MR): MR has no unit. A percentile of the *series'* foreground lands on a given level of [0, 1].
- ``hu`` (CT): a fixed window of Hounsfield units, linear.
- ``display`` (CT): no unit; the teacher learned from windowed pictures. Written out as such, never as HU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sccg_runtime.errors import InputError

FloatArray = npt.NDArray[np.float32]
Modality = Literal["MR", "CT"]
Kind = Literal["percentile", "hu", "display"]

_FIELDS: dict[str, tuple[str, ...]] = {
    "percentile": ("percentile", "foreground_above", "level"),
    "hu": ("low_hu", "high_hu"),
    "display": (),
}
_OPTIONAL: dict[str, tuple[str, ...]] = {"display": ("window_center_hu", "window_width_hu")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """What the values of one modality mean.

    Attributes
    ----------
    modality
        ``"MR"`` or ``"CT"``.
    kind
        ``"percentile"``, ``"hu"`` or ``"display"``.
    percentile, foreground_above, level
        Of ``percentile``: that percentile (0-100) of the series' foreground lands on ``level``; foreground is what
        lies above ``foreground_above``; both are shares of full scale, in [0, 1].
    low_hu, high_hu
        Of ``hu``: the Hounsfield units that become -1 and +1. Values outside are clipped on the way in.
    window_center_hu, window_width_hu
        Of ``display``: the window (DICOM PS3.3 C.11.2.1.2) that the pictures were made with, or None where unknown.
    """

    modality: Modality
    kind: Kind
    percentile: float | None = None
    foreground_above: float | None = None
    level: float | None = None
    low_hu: float | None = None
    high_hu: float | None = None
    window_center_hu: float | None = None
    window_width_hu: float | None = None

    def __post_init__(self) -> None:
        if self.modality not in get_args(Modality):
            raise InputError(f"intensity: modality {self.modality!r} is not MR or CT")
        if self.kind not in _FIELDS:
            raise InputError(f"intensity of {self.modality}: kind {self.kind!r} is none of {', '.join(_FIELDS)}")
        if (self.kind == "percentile") != (self.modality == "MR"):
            raise InputError(
                f"intensity: {self.modality} cannot be of kind {self.kind!r} (MR: percentile; CT: hu or display)"
            )
        allowed = _FIELDS[self.kind] + _OPTIONAL.get(self.kind, ())
        for name, value in asdict(self).items():
            if name in ("modality", "kind"):
                continue
            if value is None and name in _FIELDS[self.kind]:
                raise InputError(f"intensity of {self.modality}: {name} is missing (kind {self.kind})")
            if value is not None and name not in allowed:
                raise InputError(f"intensity of {self.modality}: {name} does not belong to kind {self.kind}")
            if value is not None and not np.isfinite(value):
                raise InputError(f"intensity of {self.modality}: {name} is not finite")
        if self.kind == "percentile":
            assert self.percentile is not None  # noqa: S101
            assert self.level is not None  # noqa: S101
            assert self.foreground_above is not None  # noqa: S101
            if not (0 < self.percentile <= 100 and 0 < self.level <= 1 and 0 <= self.foreground_above < self.level):
                raise InputError("intensity of MR: needs 0 < percentile <= 100 and 0 <= foreground_above < level <= 1")
        if self.kind == "hu":
            assert self.low_hu is not None  # noqa: S101
            assert self.high_hu is not None  # noqa: S101
            if not self.low_hu < self.high_hu:
                raise InputError(f"intensity of CT: low_hu {self.low_hu} is not below high_hu {self.high_hu}")
        if self.kind == "display":
            if (self.window_center_hu is None) != (self.window_width_hu is None):
                raise InputError("intensity of CT: window_center_hu and window_width_hu belong together")
            if self.window_width_hu is not None and self.window_width_hu < 1:
                raise InputError("intensity of CT: window_width_hu must be at least 1")

    @property
    def unit(self) -> str | None:
        """``"HU"``, or None where the values have no unit."""
        return "HU" if self.kind == "hu" else None

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """(low, high) in HU that become -1 and +1; None where the kind has no such window (or does not know it)."""
        if self.low_hu is not None and self.high_hu is not None:
            return self.low_hu, self.high_hu
        if self.window_center_hu is not None and self.window_width_hu is not None:
            return window_limits(self.window_center_hu, self.window_width_hu)
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON form: modality, kind, the kind's parameters and the unit."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return values | {"unit": self.unit}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], modality: str | None = None) -> Intensity:
        """Build from JSON or TOML; unknown keys are refused. ``modality`` fills in a table that is named by it.

        Raises
        ------
        InputError
            A key is unknown, missing, or not a number.
        """
        given = dict(values)
        unit = given.pop("unit", None)
        if modality is not None:
            given.setdefault("modality", modality)
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"intensity: unknown key {', '.join(unknown)}")
        for name in ("modality", "kind"):
            if not isinstance(given.get(name), str):
                raise InputError(f"intensity: {name} is missing")
        for name, value in given.items():
            if name not in ("modality", "kind") and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InputError(f"intensity: {name} is not a number")
        built = cls(**given)
        if unit is not None and unit != built.unit:
            raise InputError(f"intensity of {built.modality}: unit {unit!r} does not belong to kind {built.kind}")
        return built


def window_limits(center_hu: float, width_hu: float) -> tuple[float, float]:
    """(low, high) in HU of a DICOM window, after the LINEAR_EXACT function (PS3.3 C.11.2.1.3.2)."""
    return center_hu - width_hu / 2, center_hu + width_hu / 2


def linear_to_unit(values: npt.NDArray[Any], low: float, high: float) -> FloatArray:
    """Map ``low``..``high`` linearly onto -1..+1 and clip. Any shape; float32 out."""
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    return np.clip(scaled, -1, 1, out=scaled)


def unit_to_linear(values: FloatArray, low: float, high: float) -> FloatArray:
    """Map -1..+1 linearly onto ``low``..``high``; the inverse of :func:`linear_to_unit` inside the window."""
    mapped: FloatArray = (np.clip(values, -1, 1) + np.float32(1)) * np.float32((high - low) / 2) + np.float32(low)
    return mapped


def mr_white(volume: Iterable[npt.NDArray[Any]], intensity: Intensity) -> float:
    """The stored MR value that becomes +1, from all slices of one series.

    Foreground is what lies above ``foreground_above`` of full scale, and full scale is what this function finds; it
    starts from the largest value and repeats until both agree. Multiplying the series by a constant multiplies the
    result by it, whatever the constant.

    Parameters
    ----------
    volume
        Slices of the whole series, any shapes, stored values after rescale, 0 = no signal.
    intensity
        Of kind ``percentile``.

    Raises
    ------
    InputError
        The series holds no signal (all values zero or below) or values that are not finite.
    """
    parts = [np.asarray(part, np.float64).ravel() for part in volume]
    values, counts = np.unique(np.concatenate(parts) if parts else np.empty(0), return_counts=True)
    return mr_white_from_counts(values, counts, intensity)


def mr_white_from_counts(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], intensity: Intensity) -> float:
    """:func:`mr_white` from a histogram: the same number, without holding the series.

    Parameters
    ----------
    values
        Modality values, ascending, each once; float64.
    counts
        How many pixels of the series have each value.
    intensity
        Of kind ``percentile``.

    Raises
    ------
    InputError
        The series holds no signal (all values zero or below) or values that are not finite.
    """
    if intensity.percentile is None or intensity.level is None or intensity.foreground_above is None:
        raise InputError(f"intensity of kind {intensity.kind!r} has no percentile")
    if not np.isfinite(values).all():
        raise InputError("the MR series holds values that are not finite")
    keep = (values > 0) & (counts > 0)
    values, before = values[keep], np.cumsum(counts[keep])
    if values.size == 0:
        raise InputError("the MR series holds no signal")
    white = float(values[-1])
    for _ in range(64):
        first = int(np.searchsorted(values, intensity.foreground_above * white, side="right"))
        found = _percentile(values, before, first, intensity.percentile) / intensity.level
        if abs(found - white) <= 1e-6 * white:
            break
        white = found
    return white


def _percentile(values: npt.NDArray[np.float64], before: npt.NDArray[np.int64], first: int, percentile: float) -> float:
    """Percentile (linear between ranks, as ``numpy.percentile``) of values[first:]; ``before`` is the running count."""
    skipped = int(before[first - 1]) if first else 0
    rank = (int(before[-1]) - skipped - 1) * percentile / 100
    below = int(rank)
    low, high = (
        float(values[np.searchsorted(before, skipped + position, side="right")])
        for position in (below, min(below + 1, int(before[-1]) - skipped - 1))
    )
    return low + (high - low) * (rank - below)
