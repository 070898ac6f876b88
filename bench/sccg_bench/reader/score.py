"""What the answers of a reader study come to: share of positive answers per group, with its confidence interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from sccg_bench.reader.study import ANSWERS_SCHEMA, KEY_SCHEMA, STEPS
from sccg_runtime.errors import InputError

POSITIVE = 4
"""Answers from here on (4 similar, 5 very similar) count as positive."""
PAPER_SHARE = {"mr2ct": 0.63, "ct2mr": 0.96}
"""Positive answers to synthetic pictures as published, ten radiographers; cited, not measured here."""
KINDS = ("real", "synthetic")
REMARK = (
    "Interval: Wilson, 95 %, as if every answer were independent; answers of one reader and of one patient are not, "
    "so the true uncertainty is wider."
)


@dataclass(frozen=True, slots=True)
class Share:
    """Positive answers of a group.

    Attributes
    ----------
    positive, answers
        How many answers were positive, of how many.
    share, low, high
        In [0, 1]: the share and its Wilson 95 % interval.
    steps
        How often 1, 2, 3, 4 and 5 were given.
    """

    positive: int
    answers: int
    share: float
    low: float
    high: float
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Outcome of a study; ``missing`` counts pictures that a reader left without an answer, by reader."""

    direction: str
    groups: dict[str, Share]
    readers: dict[str, dict[str, Share]]
    missing: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the rule for positive answers and the paper's figure."""
        paper = PAPER_SHARE.get(self.direction)
        cited = {"share": paper, "status": "cited", "of": "synthetic", "readers": 10}
        return {"schema": "sccg-reader-score/1", "positive_from": POSITIVE, "remark": REMARK, "paper": cited} | asdict(
            self
        )


def wilson(positive: int, answers: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share, from SciPy, without continuity correction.

    With p = positive / answers, n = answers and z = 1.96 for 95 %:
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    Example
    -------
    >>> [round(side, 3) for side in wilson(8, 10)]
    [0.49, 0.943]
    """
    found = binomtest(positive, answers).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def share_of(given: Sequence[int]) -> Share:
    """Positive share of answers from 1 to 5, at least one."""
    positive = sum(answer >= POSITIVE for answer in given)
    steps = tuple(sum(answer == step for answer in given) for step in range(1, len(STEPS) + 1))
    return Share(positive, len(given), positive / len(given), *wilson(positive, len(given)), steps)


def score(key: Path, answers: Sequence[Path]) -> Score:
    """Hold answer files against their key.

    Raises
    ------
    InputError
        A file cannot be read or belongs to another study, an answer is not 1 to 5 or of an unknown picture, a reader
        occurs twice (one without a name: the same answers, or some of them), or a group has no answer at all.
    """
    values = _read(key, KEY_SCHEMA)
    kinds = {name: item.get("kind") for name, item in _object(values, "items", key).items() if isinstance(item, dict)}
    if not kinds or not all(kind in KINDS for kind in kinds.values()):
        raise InputError(f"{key}: the key is damaged: it does not say what is real and what is synthetic")
    readers: dict[str, dict[str, int]] = {}
    unnamed: set[str] = set()
    for path in answers:
        given = _read(path, ANSWERS_SCHEMA)
        if given.get("study") != values.get("study"):
            raise InputError(f"{path}: answers to another study than {key.name} is the key of")
        found = _object(given, "answers", path)
        for name, answer in found.items():
            if name not in kinds:
                raise InputError(f"{path}: picture {name!r} is not in the key")
            if isinstance(answer, bool) or not isinstance(answer, int) or not 1 <= answer <= len(STEPS):
                raise InputError(f"{path}: answer {answer!r} is not one of 1 to {len(STEPS)}")
        given_name = str(given.get("reader") or "")
        named = " ".join("".join(letter if letter.isprintable() else " " for letter in given_name).split())
        who = named or f"unnamed reader, {path}"
        if not named:
            unnamed.add(who)
        for other, theirs in readers.items():
            alike = found.items() <= theirs.items() or theirs.items() <= found.items()
            if other.casefold() == who.casefold() or (alike and not unnamed.isdisjoint((who, other))):
                raise InputError(f"{path}: {other!r} is the same reader or has the same answers: give each only once")
        readers[who] = found
    groups = {kind: [a for each in readers.values() for n, a in each.items() if kinds[n] == kind] for kind in KINDS}
    for kind, given_to in groups.items():
        if not given_to:
            raise InputError(f"no answer to any {kind} picture: nothing to score")
    each_reader = {
        who: {kind: share_of(part) for kind in KINDS if (part := [a for n, a in found.items() if kinds[n] == kind])}
        for who, found in readers.items()
    }
    missing = {who: len(kinds) - len(found) for who, found in readers.items() if len(found) < len(kinds)}
    shares = {kind: share_of(given_to) for kind, given_to in groups.items()}
    return Score(str(values.get("direction")), shares, each_reader, missing)


def _read(path: Path, schema: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON") from None
    found = values.get("schema") if isinstance(values, dict) else None
    if found != schema:
        raise InputError(f"{path} has schema {found!r}, not {schema!r}")
    return dict(values)


def _object(values: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = values.get(name)
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is not an object")
    return found
