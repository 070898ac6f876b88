"""Which cases are used for what. Every split is by case (patient), never by slice.

- bench: ``test/`` if there, else ``val/``; a folder without splits is used whole.
- train and distill: ``train/`` and ``val/``; where one of them is not there, cases are split with the seed.
"""

from __future__ import annotations

import logging

import numpy as np

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.cases import SPLITS
from sccg_teacher_student.data.source import DataSource

DEFAULT_VAL_FRACTION = 0.2
_log = logging.getLogger(__name__)


def choose_cases(
    source: DataSource, split: str, *, seed: int, val_fraction: float = DEFAULT_VAL_FRACTION
) -> tuple[str, ...]:
    """Cases of ``split``.

    Parameters
    ----------
    source
        An open data set.
    split
        ``"train"`` and ``"val"``: what training uses (:func:`training_cases`). ``"test"``: what bench uses
        (:func:`bench_cases`). ``"all"``: every case.
    seed
        Of the split by case, where the folder has no splits.
    val_fraction
        Share of the cases that validates, where the folder has no splits.

    Raises
    ------
    InputError
        The split is not known, or the data set does not have it.
    """
    if split == "all":
        return source.cases
    if split == "test":
        return bench_cases(source)
    if split == "val" and "val" in source.splits:
        return source.splits["val"]
    if split in ("train", "val"):
        train, val = training_cases(source, seed=seed, val_fraction=val_fraction)
        chosen = train if split == "train" else val
        if not chosen:
            raise InputError(f"{source.path}: one case cannot be split; there is no case left for {split}")
        return chosen
    raise InputError(f"split {split!r} is none of {', '.join(SPLITS)}, all")


def bench_cases(source: DataSource, split: str | None = None) -> tuple[str, ...]:
    """Cases that bench measures on: ``test/`` if there, else ``val/``; all cases where there are no splits.

    Parameters
    ----------
    source
        An open data set.
    split
        None or ``"test"`` for that rule; ``"train"``, ``"val"`` or ``"all"`` to ask for those.

    Raises
    ------
    InputError
        The data set has splits but not the one asked for.
    """
    if split == "all":
        return source.cases
    if split not in (None, *SPLITS):
        raise InputError(f"split {split!r} is none of {', '.join(SPLITS)}, all")
    if not source.splits:
        if split in ("train", "val"):
            raise InputError(f"{source.path}: has no {split}/ folder; without splits bench uses all cases")
        return source.cases
    for name in ("test", "val") if split in (None, "test") else (str(split),):
        if name in source.splits:
            return source.splits[name]
    has = ", ".join(f"{name}/" for name in source.splits)
    raise InputError(f"{source.path}: has {has} but no {split or 'test/ or val'}/; say --split all to measure on all")


def training_cases(
    source: DataSource, *, seed: int, val_fraction: float = DEFAULT_VAL_FRACTION
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(train, val) cases; never the same case in both, and never a case of ``test/``.

    ``train/`` and ``val/`` where both are there. Without ``val/``, or without splits at all, the cases are shuffled
    with the seed and ``val_fraction`` of them (at least one) validates. A single case trains, and val is empty.

    Raises
    ------
    InputError
        There are splits but no ``train/``, or ``val_fraction`` is not between 0 and 1.
    """
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction {val_fraction} is not between 0 and 1")
    if source.splits and "train" not in source.splits:
        has = ", ".join(f"{name}/" for name in source.splits)
        raise InputError(f"{source.path}: has {has} but no train/; nothing to learn from")
    if "val" in source.splits:
        return source.splits["train"], source.splits["val"]
    cases = source.splits.get("train", source.cases)
    if len(cases) == 1:
        _log.warning("%s: one case only (%s); it is used for training and nothing validates", source.path, cases[0])
        return cases, ()
    count = min(max(1, round(val_fraction * len(cases))), len(cases) - 1)
    shuffled = np.random.default_rng(seed).permutation(len(cases))
    held = {cases[index] for index in shuffled[:count]}
    return tuple(c for c in cases if c not in held), tuple(c for c in cases if c in held)
