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

VAL_SHARE = 0.2
_log = logging.getLogger(__name__)


def bench_cases(source: DataSource, split: str | None = None) -> tuple[str, ...]:
    """Cases that bench measures on: ``test/`` if there, else ``val/``; all cases where there are no splits.

    Parameters
    ----------
    source
        An open data set.
    split
        None for that rule; ``"train"``, ``"val"``, ``"test"`` or ``"all"`` to ask for those.

    Raises
    ------
    InputError
        The data set does not have the split that was asked for, or has splits but neither ``test/`` nor ``val/``.
    """
    if split == "all":
        return source.cases
    if split not in (None, *SPLITS):
        raise InputError(f"split {split!r} is none of {', '.join(SPLITS)}, all")
    if not source.splits:
        if split is not None:
            raise InputError(f"{source.path}: has no {split}/ folder; without splits bench uses all cases")
        return source.cases
    for name in ("test", "val") if split is None else (split,):
        if name in source.splits:
            return source.splits[name]
    has = ", ".join(f"{name}/" for name in source.splits)
    raise InputError(f"{source.path}: has {has} but no {split or 'test/ or val'}/; say --split all to measure on all")


def training_cases(source: DataSource, *, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(train, val) cases; never the same case in both, and never a case of ``test/``.

    ``train/`` and ``val/`` where both are there. Without ``val/``, or without splits at all, the cases are shuffled
    with the seed and a fifth of them (at least one) validates. A single case trains, and val is empty.

    Raises
    ------
    InputError
        There are splits but no ``train/``.
    """
    if source.splits and "train" not in source.splits:
        has = ", ".join(f"{name}/" for name in source.splits)
        raise InputError(f"{source.path}: has {has} but no train/; nothing to learn from")
    if "val" in source.splits:
        return source.splits["train"], source.splits["val"]
    cases = source.splits.get("train", source.cases)
    if len(cases) == 1:
        _log.warning("%s: one case only (%s); it is used for training and nothing validates", source.path, cases[0])
        return cases, ()
    count = min(max(1, round(VAL_SHARE * len(cases))), len(cases) - 1)
    shuffled = np.random.default_rng(seed).permutation(len(cases))
    held = {cases[index] for index in shuffled[:count]}
    return tuple(c for c in cases if c not in held), tuple(c for c in cases if c in held)
