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
from sccg_teacher_student.task import Part
from sccg_teacher_student.views import Base, contrast

BOTH: tuple[Modality, ...] = ("MR", "CT")


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
    shares
        By the modalities that a loss needs: the part's share of the step's slices that have them, times the number of
        parts. A mean over such slices times this, averaged over the parts, is the mean over the step.
    """

    names: tuple[str, ...]
    inputs: dict[Modality, Tensor]
    targets: dict[Modality, Tensor]
    there: dict[Modality, Tensor]
    shares: dict[tuple[Modality, ...], float]


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

    def pairs_per_step(self, batch: int) -> float:
        """In the mean: with unpaired slices every other slice is one."""
        return batch / 2 if self.unpaired else batch

    def check_parts(self, batch: int, count: int) -> None:
        """InputError if ``count`` parts of a batch would not all hold pairs and unpaired slices."""
        if self.unpaired and batch // count < 2:
            raise InputError(
                f"with --unpaired each of the {count} parts of a batch needs 2 slices: --batch {2 * count}"
            )

    def draw(self, batch: int, part: Part) -> Batch:
        """``part`` of the batch of a step."""
        numbers = range(part.step * batch, (part.step + 1) * batch)
        drawn = [self._slice(number) for number in numbers[part.of(batch)]]
        names, inputs, targets = zip(*drawn, strict=True)
        kinds = [self._chosen(number)[1] for number in numbers]
        shares: dict[tuple[Modality, ...], float] = {}
        for needed in (("MR",), ("CT",), BOTH):
            whole, own = (sum(set(needed) <= set(kind) for kind in some) for some in (kinds, kinds[part.of(batch)]))
            shares[needed] = part.count * own / whole
        return Batch(names, _stacked(inputs), _stacked(targets), _there(targets), shares)

    def _slice(self, number: int) -> tuple[str, dict[Modality, FloatArray | None], dict[Modality, FloatArray | None]]:
        """(name, inputs, targets) number ``number`` (from 0) of the whole run."""
        rng = np.random.default_rng((self.seed, number))
        base, kind = self._chosen(number)
        image, partner = base.load()
        mr, ct = (image, partner) if kind == BOTH else (image, None) if kind == ("MR",) else (None, image)
        if self.augment:
            mr, ct = moved_together([mr, ct], rng)
        given = contrast(mr, rng) if self.augment and mr is not None else mr
        return f"{base.case}/{base.slice}", {"MR": given, "CT": ct}, {"MR": mr, "CT": ct}

    def _chosen(self, number: int) -> tuple[Base, tuple[Modality, ...]]:
        """Which one, and what it has: every pair once, then every pair in another order; unpaired slices likewise."""
        if not self.unpaired:
            return self.pairs[_shuffled(self.seed, 0, number, len(self.pairs))], BOTH
        if number % 2 == 0:
            return self.pairs[_shuffled(self.seed, 0, number // 2, len(self.pairs))], BOTH
        modality, base = self.unpaired[_shuffled(self.seed, 1, number // 2, len(self.unpaired))]
        return base, (modality,)


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


def aligned(base: Base, moving: Modality) -> Base:
    """A pair whose ``moving`` slice lies on the other one, by one rigid refinement now."""
    from sccg_teacher_student.registration import refine

    first, fixed = base.load()
    if fixed is None:
        return base
    found = refine(first, fixed) if moving == "MR" else refine(fixed, first)

    def load() -> Loaded:
        mr, ct = base.load()
        return (found.apply(mr), ct) if moving == "MR" or ct is None else (mr, found.apply(ct))

    return Base(base.case, base.slice, load)
