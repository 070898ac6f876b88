"""Which slices set the INT8 ranges: chosen with a seed, spread over cases and levels, recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sccg_export.graph import INPUT
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data.source import DataSource

DEFAULT_SLICES = 96


@dataclass(frozen=True, slots=True)
class Calibration:
    """Slices that INT8 ranges are taken from.

    Attributes
    ----------
    images
        (1, H, W) float32 in [-1, 1] each.
    names
        ``case/slice`` of each.
    seed
        That they were chosen with.
    """

    images: Sequence[FloatArray]
    names: tuple[str, ...]
    seed: int

    def to_dict(self) -> Mapping[str, Any]:
        """For the contract: count, seed, names, and the hash of the pixels."""
        digest = sha256(b"".join(np.ascontiguousarray(image).tobytes() for image in self.images))
        return {"slices": len(self.images), "seed": self.seed, "names": list(self.names), "sha256": digest}


def needed(calibration: Calibration | None) -> Calibration:
    """The slices that INT8 takes its ranges from (InputError where there are none)."""
    if calibration is None:
        raise InputError("int8 needs calibration slices")
    return calibration


class Slices:
    """Calibration slices one by one, in an order of chance: the moving average weighs the last ones most."""

    def __init__(self, calibration: Calibration) -> None:
        order = np.random.default_rng(calibration.seed).permutation(len(calibration.images))
        self._images = (calibration.images[index] for index in order)

    def get_next(self) -> dict[str, FloatArray] | None:
        """``{"input": (1, 1, H, W)}``, then None."""
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


def choose_calibration(
    source: DataSource, cases: Sequence[str], direction: Direction, *, seed: int, count: int = DEFAULT_SLICES
) -> Calibration:
    """Take ``count`` slices from ``cases`` (all where there are fewer).

    Up to half are first and last slices of cases (skull base and vertex, the extremes), the rest is drawn evenly.

    Raises
    ------
    InputError
        There is no slice of the input modality.
    """
    extremes: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for case in cases:
        names = source.slices(case)
        ends = {0, len(names) - 1}
        for index, name in enumerate(names):
            (extremes if index in ends else others).append((case, name))
    if not extremes:
        raise InputError(f"{source.path}: no slice to calibrate with in {', '.join(cases) or 'no case'}")
    rng = np.random.default_rng(seed)
    others = [others[index] for index in rng.permutation(len(others))]
    extremes = [extremes[index] for index in rng.permutation(len(extremes))]
    half = count // 2
    chosen = sorted((extremes[:half] + others + extremes[half:])[:count])
    return Calibration(
        images=[source.load(case, name).given(direction) for case, name in chosen],
        names=tuple(f"{case}/{name}" for case, name in chosen),
        seed=seed,
    )
