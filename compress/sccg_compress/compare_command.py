"""``sccg-compress compare``: two result files of bench side by side, and a gate for CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress.console import result, say, write_json
from sccg_runtime.errors import RefusedError

if TYPE_CHECKING:
    from sccg_bench.compare import Compared
    from sccg_bench.results import Results

SCHEMA = "sccg-compare/1"


def compare_files(
    a: Path, b: Path, fail_if: Sequence[str], *, rows: Sequence[str], force: bool, json_out: str | None
) -> None:
    """Print A | B | ratio of every row and hold B against the rules.

    Parameters
    ----------
    a, b
        JSON files that bench wrote: before and after.
    fail_if
        Rules, see :func:`sccg_bench.compare.parse_rule`.
    rows
        Names of the rows to look at; none: all that A measured.
    force
        Compare although machines, engines or slices differ.
    json_out
        File for the outcome as JSON, ``-`` for stdout, or None.

    Raises
    ------
    InputError
        A file, a rule or a row cannot be used.
    RefusedError
        A rule was broken; the message names every row that did.
    """
    from sccg_bench.compare import compare, parse_rule
    from sccg_bench.results import read_results

    before, after = read_results(a), read_results(b)
    rules = [parse_rule(text, (before, after)) for text in fail_if]
    found = compare(before, after, rules, rows, force)
    broken = [each for each in found if each.verdict == "broken"]
    only_b = _new_rows(before, after)
    if json_out is not None:
        write_json(
            json_out,
            {
                "schema": SCHEMA,
                "a": a.name,
                "b": b.name,
                "forced": force,
                "passed": not broken,
                "rules": list(fail_if),
                "figures": [each.to_dict() for each in found],
                "only_in_b": only_b,
                "warnings": {"a": list(before.warnings), "b": list(after.warnings)},
            },
        )
    if json_out != "-":
        for line in table(found):
            result(line)
    for label, run in (("A", before), ("B", after)):
        for warning in run.warnings:
            say(f"{label}: warning: {warning}")
    for each in found:
        if each.verdict == "not checked":
            say(f"not checked: {each.row}: {each.rule}: {each.note}")
    if only_b:
        say(f"only in B, not compared: {'; '.join(only_b)}")
    if broken:
        raise RefusedError(f"broken in B: {'; '.join(_sentence(each) for each in broken)}")


def table(found: Sequence[Compared]) -> list[str]:
    """Lines ``model | figure | A | B | ratio | outcome``, in columns."""
    lines = [("model", "figure", "A", "B", "ratio", "outcome")]
    for each in found:
        outcome: str = "" if each.verdict == "shown" else each.verdict
        if each.verdict == "shown" and each.ratio is None and each.note:
            outcome = f"no ratio: {each.note}"
        elif each.rule is not None:
            rule = f"fails if {each.rule}" if each.verdict == "kept" else each.rule
            outcome += f": {rule}" if each.note in (None, each.rule) else f": {each.note} ({rule})"
        figures = (_number(each.a), _number(each.b), "–" if each.ratio is None else f"{each.ratio:.3f}x")
        lines.append((each.row, each.metric, *figures, outcome))
    widths = [max(len(line[index]) for line in lines) for index in range(5)]
    return [
        "  ".join(
            cell.rjust(width) if index in (2, 3, 4) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, (*widths, 0), strict=True))
        ).rstrip()
        for line in lines
    ]


def _new_rows(before: Results, after: Results) -> list[str]:
    known = {row.name for row in before.rows}
    return [row.name for row in after.rows if row.name not in known and row.status == "measured"]


def _sentence(each: Compared) -> str:
    return f"{each.row}: {each.metric} {_number(each.b)} (A: {_number(each.a)}), {each.note}"


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
