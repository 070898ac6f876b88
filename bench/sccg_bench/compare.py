"""Two runs side by side, and rules that say which change is a regression: ``latency_ms.p50 > 1.1x``.

Rows are matched by name; the cited row and the control are left out. What cannot be compared is told, never passed.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sccg_bench.latency import Latency
from sccg_bench.quality import DETAIL
from sccg_bench.results import FIGURES, Results, Row
from sccg_runtime.errors import InputError

GROUPS = ("latency_ms", "latency_native_ms", *FIGURES)
SCALARS = ("size_mib", "peak_rss_mib", "device_p50_ms")
DEFAULTS = (
    *("latency_ms.p50", "peak_rss_mib", "size_mib", "drift.to_teacher_psnr_db", "quality.hf_ratio"),
    *("drift.delta_psnr_db", "engine_drift.engine_to_fp32_psnr_db"),
)
"""Shown whether a rule asks for them or not."""
_TIMED = ("latency_ms", "latency_native_ms", "throughput", "series", "peak_rss_mib", "device_p50_ms")
_SAME_MACHINE = {
    "cpu": "CPUs",
    "instruction_sets": "instruction sets",
    "limited_to": "limits of oneDNN",
    "physical_cores": "cores",
    "usable_cores": "usable cores",
}
_LATENCY_NAMES = tuple(each.name for each in fields(Latency))
_RULE = re.compile(r"\s*(?P<metric>[A-Za-z_][\w.]*)\s*(?P<sign><=|>=|<|>)\s*(?P<value>[^\sx]+)(?P<ratio>x?)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Verdict = Literal["kept", "broken", "not checked", "shown"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that must not hold.

    Attributes
    ----------
    text
        As it was written.
    metric
        ``GROUP.NAME``, or one of :data:`SCALARS`.
    sign, value
        What B's figure must not be: ``>`` 5, say.
    is_ratio
        The value is a multiple of A's figure.
    """

    text: str
    metric: str
    sign: str
    value: float
    is_ratio: bool

    def holds(self, before: float | None, after: float) -> bool:
        """Whether the condition holds, so that the rule is broken; ``before`` matters to ratios only."""
        limit = self.value * before if self.is_ratio and before is not None else self.value
        return _SIGNS[self.sign](after, limit)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one row in both runs.

    Attributes
    ----------
    row, metric
        Which figure.
    a, b, ratio
        The figure in both runs and b / a; None where there is none, or where a ratio would mislead.
    rule
        Text of the rule that it was held against; None for figures that are only shown.
    verdict
        ``kept``, ``broken``, ``not checked`` (see ``note``) or ``shown``.
    note
        Why it is broken or was not checked.
    """

    row: str
    metric: str
    a: float | None
    b: float | None
    ratio: float | None
    rule: str | None
    verdict: Verdict
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def parse_rule(text: str, runs: Sequence[Results]) -> Rule:
    """Read ``METRIC < | <= | > | >= NUMBER[x]``; the metric's full name is found in the runs.

    Raises
    ------
    InputError
        The text is no such rule, the number is not finite, or no run knows the metric.

    Example
    -------
    >>> parse_rule("p50 > 1.1x", []).metric
    'latency_ms.p50'
    """
    found = _RULE.fullmatch(text)
    value = math.nan
    if found is not None:
        try:
            value = float(found["value"])
        except ValueError:
            found = None
    if found is None or not math.isfinite(value):
        raise InputError(f"--fail-if {text!r}: write METRIC > NUMBER, such as 'latency_ms.p50 > 1.1x' or 'ssim < 0.6'")
    if found["ratio"] and value <= 0:
        raise InputError(f"--fail-if {text!r}: a ratio must be above 0")
    return Rule(text.strip(), metric_name(found["metric"], runs), found["sign"], value, bool(found["ratio"]))


def metric_name(name: str, runs: Sequence[Results]) -> str:
    """The full name of a metric: a dotted path as it is, a bare name from the first group that has it.

    Raises
    ------
    InputError
        No run has such a metric; close names are offered.
    """
    known = [f"{group}.{each}" for group in GROUPS[:2] for each in _LATENCY_NAMES] + list(SCALARS)
    for group in GROUPS[2:]:
        names = [each for run in runs for row in run.rows for each in getattr(row, group) or {}]
        known += [f"{group}.{each}" for each in dict.fromkeys(names)]
    asked = re.sub(r"^latency\.", "latency_ms.", name)
    if asked in known:
        return asked
    for full in known if "." not in asked else ():
        if full.rpartition(".")[2] == asked:
            return full
    choices = [*known, *(full.rpartition(".")[2] for full in known)]
    close = difflib.get_close_matches(asked, choices, 3) or [*DEFAULTS[:1], "drift.delta_psnr_db"]
    raise InputError(f"metric {name!r} is in neither file; did you mean {' or '.join(close)}?")


def figure(row: Row, metric: str) -> float | None:
    """A figure by its full name, or None."""
    group, _, name = metric.rpartition(".")
    if not group:
        value = getattr(row, name)
    elif group.startswith("latency"):
        value = getattr(getattr(row, group), name, None)
    else:
        value = row.figure(group, name)
    return None if value is None or not math.isfinite(value) else float(value)


def compare(
    a: Results, b: Results, rules: Sequence[Rule] = (), names: Sequence[str] = (), force: bool = False
) -> list[Compared]:
    """All figures of the matched rows, and what became of the rules.

    Parameters
    ----------
    a, b
        The run before and the run after.
    rules
        See :func:`parse_rule`.
    names
        Rows to look at; none: all that A measured.
    force
        Compare although machines, engines or slices differ.

    Raises
    ------
    InputError
        A row is missing, a ratio was asked for between runs that differ (without ``force``), or a rule could be
        checked in no row.
    """
    pairs = _matched(a, b, names)
    found: list[Compared] = []
    for before, after in pairs:
        for metric in dict.fromkeys((*DEFAULTS, *(rule.metric for rule in rules))):
            held = [rule for rule in rules if rule.metric == metric]
            apart = None if force else apart_in(a, b, before, after, metric)
            values = figure(before, metric), figure(after, metric)
            ratio = _ratio(*values)
            misleads = apart is not None or "delta_" in metric
            for rule in held:
                if rule.is_ratio and None not in values and apart is not None:
                    raise InputError(f"{rule.text!r}: {before.name}: {apart}; measure both again alike, or say --force")
                kind = None if force else _other_kind(before, after, metric)
                found.append(_held(before, after, rule, ratio if rule.is_ratio or not misleads else None, kind))
            if not held and values != (None, None):
                shown = None if misleads else ratio
                found.append(Compared(before.name, metric, *values, shown, None, "shown", apart))
    for rule in rules:
        mine = [each for each in found if each.rule == rule.text]
        if all(each.verdict == "not checked" for each in mine):
            raise InputError(f"{rule.text!r} could be checked in no row: {mine[0].row}: {mine[0].note}")
    return found


def apart_in(a: Results, b: Results, before: Row, after: Row, metric: str) -> str | None:
    """Why a ratio of this figure says nothing about the models, in one clause; None if nothing speaks against it.

    Times and memory need the same processor and instruction sets, cores, threads, engine version, precision and size,
    whole series the same series; other figures the same direction, data set, cases and slices, those against the
    teacher the same teacher (where both runs name it).
    """
    group, _, name = metric.partition(".")
    timed = group in _TIMED
    facts: list[tuple[str, object, object]] = [("directions", a.direction, b.direction)]
    if timed:
        facts += [(label, a.machine.get(key), b.machine.get(key)) for key, label in _SAME_MACHINE.items()]
        shape = "quality_size" if metric.startswith("latency_native_ms") else "size"
        names = ("device", "threads", "engine", "engine_version", "precision", shape)
        facts += [(name.replace("_", " "), getattr(before, name), getattr(after, name)) for name in names]
        if group == "series":
            facts.append(("series", a.provenance.get("series"), b.provenance.get("series")))
        if a.machine.get("cpu") is None:
            return "the CPU is not named"
    elif metric != "size_mib":
        facts.append(("data sets", a.provenance.get("data"), b.provenance.get("data")))
        facts.append(("simulated data", a.is_simulated, b.is_simulated))
        facts.append(("cases", a.provenance.get("cases"), b.provenance.get("cases")))
        facts.append(("slices", (before.counts or {}).get("slices"), (after.counts or {}).get("slices")))
        facts.append(("quality sizes", before.quality_size, after.quality_size))
        teacher, other = (run.provenance.get("teacher_sha256") for run in (a, b))
        if (group == "drift" or name in DETAIL) and teacher is not None and other is not None:
            facts.append(("teachers", teacher, other))
    return _apart(facts) or _other_kind(before, after, metric)


def _other_kind(before: Row, after: Row, metric: str) -> str | None:
    """Why a figure of the same name is another one in both rows, so that a limit for it says nothing; else None."""
    group, _, name = metric.partition(".")
    facts: list[tuple[str, object, object]] = []
    if name in DETAIL:
        facts.append(("what detail is held against", before.detail_against, after.detail_against))
    if group == "engine_drift":
        facts.append(("origins of engine drift", before.engine_drift_from, after.engine_drift_from))
    return _apart(facts)


def _apart(facts: Sequence[tuple[str, object, object]]) -> str | None:
    """The first of (label, in A, in B) that differs, in one clause."""
    told = (f"{label} differ ({_text(one)}; {_text(other)})" for label, one, other in facts if one != other)
    return next(told, None)


def _held(before: Row, after: Row, rule: Rule, ratio: float | None, other_kind: str | None) -> Compared:
    first, second = figure(before, rule.metric), figure(after, rule.metric)
    verdict: Verdict = "not checked"
    note = None
    fails = (before.status, after.status) == ("measured", "failed")
    if second is None and (first is not None or fails):
        verdict, note = "broken", f"null in B ({after.note or after.status}), {_text(first)} in A"
    elif fails:  # what was measured before the failure is kept
        verdict, note = "broken", f"failed in B ({after.note})"
    elif second is None:
        note = "null in A and in B"
    elif rule.is_ratio and first is None:
        note = "null in A: no ratio"
    elif rule.is_ratio and first is not None and first <= 0:
        note = f"{_text(first)} in A: no ratio"
    elif other_kind is not None:
        note = other_kind
    elif rule.holds(first, second):
        verdict, note = "broken", rule.text
    else:
        verdict = "kept"
    return Compared(before.name, rule.metric, first, second, ratio, rule.text, verdict, note)


def _matched(a: Results, b: Results, names: Sequence[str]) -> list[tuple[Row, Row]]:
    usable = [row.name for row in a.rows if row.status == "measured" and row.role not in ("control", "cited")]
    wanted = list(dict.fromkeys(names)) or usable
    if not wanted:
        raise InputError("A holds no measured row: nothing to compare")
    pairs = []
    for name in wanted:
        first, second = a.row(name), b.row(name)
        for label, row, run in (("A", first, a), ("B", second, b)):
            if row is None:
                have = "; ".join(each.name for each in run.rows if each.role not in ("control", "cited"))
                raise InputError(f"{label} has no row {name!r} (choose rows with --row); it has: {have or 'none'}")
        if first is not None and second is not None:
            pairs.append((first, second))
    return pairs


def _ratio(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None or first <= 0 else second / first


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "null" if value is None else str(value)
