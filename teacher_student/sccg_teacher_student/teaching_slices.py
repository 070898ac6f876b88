"""What a teacher learns from: pairs, unpaired slices, and the batches that are drawn from them.

Which slices a step sees, and how they are changed, depends on the seed and the step's number alone: a resumed run and
several processes see what one undisturbed process would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Modality
from sccg_teacher_student.augment import moved_together
from sccg_teacher_student.bases import Loaded
from sccg_teacher_student.loop import Part
from sccg_teacher_student.views import Base, contrast


@dataclass(frozen=True, slots=True)
class Batch:
    """Slices of one part of a step.

    Attributes
    ----------
    names
        ``case/slice`` of each.
    inputs, targets
        By modality, (N, 1, H, W) in [-1, 1]. An input MR may have other grey values than the target MR of the same
        name. What is missing is background.
    there
        By modality, (N,) bool: which slices are not missing.
    """

    names: tuple[str, ...]
    inputs: dict[Modality, Tensor]
    targets: dict[Modality, Tensor]
    there: dict[Modality, Tensor]


@dataclass(frozen=True, slots=True)
class TeachingSlices:
    """Pairs and unpaired slices of one size.

    Attributes
    ----------
    pairs
        Each gives (mr, ct).
    unpaired
        Modality and slice; each gives (slice, None).
    seed
        Of order and changes.
    augment
        Whether slices are changed at all.
    """

    pairs: Sequence[Base]
    unpaired: Sequence[tuple[Modality, Base]]
    seed: int
    augment: bool

    def pairs_per_step(self, batch: int) -> int:
        """With unpaired slices every other slice of a batch is one."""
        return (batch + 1) // 2 if self.unpaired else batch

    def check_parts(self, batch: int, count: int) -> None:
        """InputError if ``count`` parts of a batch would not all hold pairs and unpaired slices."""
        if self.unpaired and batch // count < 2:
            raise InputError(
                f"with --unpaired each of the {count} parts of a batch needs 2 slices: --batch {2 * count}"
            )

    def draw(self, batch: int, part: Part) -> Batch:
        """``part`` of the batch of a step."""
        drawn = [self._slice(part.step * batch + number) for number in range(batch)[part.of(batch)]]
        names, inputs, targets = zip(*drawn, strict=True)
        return Batch(names, _stacked(inputs), _stacked(targets), _there(targets))

    def _slice(self, number: int) -> tuple[str, dict[Modality, FloatArray | None], dict[Modality, FloatArray | None]]:
        """(name, inputs, targets) number ``number`` (from 0) of the whole run."""
        rng = np.random.default_rng((self.seed, number))
        base, mr, ct = self._pick(number)
        if self.augment:
            mr, ct = moved_together([mr, ct], rng)
        given = contrast(mr, rng) if self.augment and mr is not None else mr
        return f"{base.case}/{base.slice}", {"MR": given, "CT": ct}, {"MR": mr, "CT": ct}

    def _pick(self, number: int) -> tuple[Base, FloatArray | None, FloatArray | None]:
        """(base, mr, ct): every pair once, then every pair again in another order; unpaired slices likewise."""
        if not self.unpaired:
            base = self.pairs[_shuffled(self.seed, 0, number, len(self.pairs))]
            return base, *base.load()
        if number % 2 == 0:
            base = self.pairs[_shuffled(self.seed, 0, number // 2, len(self.pairs))]
            return base, *base.load()
        modality, base = self.unpaired[_shuffled(self.seed, 1, number // 2, len(self.unpaired))]
        image = base.load()[0]
        return (base, image, None) if modality == "MR" else (base, None, image)


def _shuffled(seed: int, pool: int, number: int, count: int) -> int:
    """Place ``number`` of an endless sequence that takes each of ``count`` once per epoch, each time in a new order."""
    return int(_order(seed, pool, number // count, count)[number % count])


@lru_cache(maxsize=4)
def _order(seed: int, pool: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, pool, epoch)).permutation(count)


def _stacked(sides: Sequence[dict[Modality, FloatArray | None]]) -> dict[Modality, Tensor]:
    size = next(image.shape for side in sides for image in side.values() if image is not None)
    missing = np.full(size, -1, np.float32)
    found: dict[Modality, Tensor] = {}
    for modality in sides[0]:
        images = [side[modality] for side in sides]
        found[modality] = torch.from_numpy(np.stack([missing if image is None else image for image in images]))[:, None]
    return found


def _there(sides: Sequence[dict[Modality, FloatArray | None]]) -> dict[Modality, Tensor]:
    return {modality: torch.tensor([side[modality] is not None for side in sides]) for modality in sides[0]}


def aligned(base: Base, moving: Modality) -> Loaded:
    """(mr, ct) of a pair after rigid refinement of the ``moving`` one."""
    from sccg_teacher_student.registration import refine

    mr, ct = base.load()
    if ct is None:
        return mr, ct
    if moving == "MR":
        return refine(mr, ct).apply(mr), ct
    return mr, refine(ct, mr).apply(ct)
