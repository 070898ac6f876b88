"""From slices to patients to one figure: mean over the slices of a patient, then mean over patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sccg_bench.spot import Spot

Figures = dict[str, float | None]
"""Name with unit -> value; None where there is none."""
COUNTED = ("capped", "empty_iou_foreground", "empty_iou_bone", "lesion", "no_reference")
GROUPS = ("quality", "drift", "engine_drift")


@dataclass(frozen=True, slots=True)
class SliceScores:
    """Figures of one slice.

    Attributes
    ----------
    case, slice
        Names.
    quality, drift, engine_drift
        Figures against the reference, the teacher and the FP32 network; empty where there is no such thing.
    counted
        What is true of it and counted (:data:`COUNTED`): ``capped`` (PSNR cut off at 100 dB), ``empty_iou_...``
        (nothing to overlap), ``lesion`` (somebody drew one), ``no_reference`` (no real image of the output modality).
    spot
        Where ``to_teacher_spot_u8`` was found, with its sign; None without a teacher.
    """

    case: str
    slice: str
    quality: Figures
    drift: Figures
    engine_drift: Figures
    counted: tuple[str, ...] = ()
    spot: Spot | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        figures = {group: getattr(self, group) or None for group in GROUPS}
        counts = {"counted": list(self.counted), "not_finite": list(self.not_finite)}
        place = {"spot": None if self.spot is None else self.spot.to_dict()}
        return {"case": self.case, "slice": self.slice} | figures | counts | place

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Names of figures that are NaN or infinite: left out of the means, counted, and null in the JSON."""
        return tuple(name for group in GROUPS for name in not_finite(getattr(self, group)))


@dataclass(frozen=True, slots=True)
class PatientScores:
    """Mean figures of one patient's slices; ``slices`` is their number."""

    case: str
    slices: int
    quality: Figures
    drift: Figures
    engine_drift: Figures

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"case": self.case, "slices": self.slices} | {group: getattr(self, group) or None for group in GROUPS}


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over patients of the patients' means, and how often each counted thing happened."""

    quality: Figures
    drift: Figures
    engine_drift: Figures
    patients: tuple[PatientScores, ...]
    counts: dict[str, int] = field(default_factory=dict)


def mean_figures(parts: Sequence[Mapping[str, float | None]]) -> Figures:
    """Mean of every figure over the parts that have it; None where none has.

    NaN and infinities count as not having it; :func:`summarise` counts them.

    Example
    -------
    >>> mean_figures([{"ssim": 0.5}, {"ssim": 1.0}, {"ssim": None}])
    {'ssim': 0.75}
    """
    means: Figures = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        known = [value for part in parts if (value := part.get(name)) is not None and np.isfinite(value)]
        means[name] = float(np.mean(known)) if known else None
    return means


def not_finite(figures: Mapping[str, float | None]) -> tuple[str, ...]:
    """Names of the figures that are NaN or infinite.

    Example
    -------
    >>> not_finite({"ssim": float("nan"), "psnr_db": 30.0, "mae_u8": None})
    ('ssim',)
    """
    return tuple(name for name, value in figures.items() if value is not None and not np.isfinite(value))


def summarise(slices: Sequence[SliceScores], per_case: Mapping[str, Figures] | None = None) -> Summary:
    """Mean per patient, then over patients; every patient counts the same, however many slices it has.

    Parameters
    ----------
    slices
        In any order; patients come out in order of first appearance.
    per_case
        Quality figures that exist per patient only (volumes), added to the patients.
    """
    grouped: dict[str, list[SliceScores]] = {}
    for part in slices:
        grouped.setdefault(part.case, []).append(part)
    patients = tuple(
        PatientScores(
            case=case,
            slices=len(parts),
            quality=mean_figures([part.quality for part in parts]) | dict((per_case or {}).get(case, {})),
            drift=mean_figures([part.drift for part in parts]),
            engine_drift=mean_figures([part.engine_drift for part in parts]),
        )
        for case, parts in grouped.items()
    )
    counts: dict[str, int] = {"patients": len(patients), "slices": len(slices)}
    for name in COUNTED:
        counts[name] = sum(name in part.counted for part in slices)
    counts["not_finite"] = sum(len(part.not_finite) for part in slices)
    counts["not_finite"] += sum(len(not_finite(figures)) for figures in (per_case or {}).values())
    quality, drift, engine_drift = (mean_figures([getattr(p, group) for p in patients]) for group in GROUPS)
    return Summary(quality, drift, engine_drift, patients, counts)


def ranked(slices: Iterable[SliceScores]) -> list[SliceScores]:
    """Slices from worst to best: by PSNR to the teacher, else to the reference, else to the FP32 network.

    Slices without any of these, or where it is not finite, are left out, so the list may be empty.
    """
    parts = list(slices)
    keys = (("drift", "to_teacher_psnr_db"), ("quality", "psnr_db"), ("engine_drift", "engine_to_fp32_psnr_db"))
    for group, name in keys:
        values = [(getattr(part, group).get(name), part) for part in parts]
        known = [(value, part) for value, part in values if value is not None and np.isfinite(value)]
        if known:
            return [part for _, part in sorted(known, key=lambda entry: float(entry[0]))]
    return []


def landmarks(slices: Sequence[SliceScores]) -> dict[str, SliceScores]:
    """The ``worst``, ``median`` and ``best`` slice of :func:`ranked`, fewer where there are fewer than three.

    And with a teacher ``spot``: the slice with the largest local difference to it, which may be one of these.
    """
    order = ranked(slices)
    if not order:
        return {}
    chosen = {"worst": order[0]}
    if len(order) > 2:
        chosen["median"] = order[len(order) // 2]
    if len(order) > 1:
        chosen["best"] = order[-1]
    marked = [part for part in slices if part.spot is not None and np.isfinite(part.spot.difference_u8)]
    if marked:
        chosen["spot"] = max(marked, key=lambda part: abs(part.spot.difference_u8) if part.spot else 0.0)
    return chosen
