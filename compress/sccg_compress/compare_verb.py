"""``compare``: two result files of bench side by side, and a gate for CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_compress.console import result, say, write_json
from sccg_compress.verb_options import JsonOption
from sccg_runtime.errors import RefusedError

if TYPE_CHECKING:
    from sccg_bench.compare import Compared
    from sccg_bench.results import Results

SCHEMA = "sccg-compare/1"


def compare(
    a: Annotated[Path, typer.Argument(help="result.json of the run before.")],
    b: Annotated[Path, typer.Argument(help="result.json of the run after.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="METRIC > NUMBER, or < NUMBER; with an x behind the number, a multiple of A's figure. Repeatable."
        ),
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="Row to look at; repeatable. Default: all of A.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare different machines, engines or slices.")] = False,
    json_out: JsonOption = None,
) -> None:
    """Hold one bench run against another; exit code 3 names the rows that broke a --fail-if."""
    from sccg_bench.compare import compare as compared
    from sccg_bench.compare import parse_rule
    from sccg_bench.results import read_results

    before, after = read_results(a), read_results(b)
    rules = [parse_rule(text, (before, after)) for text in fail_if or []]
    found = compared(before, after, rules, row or [], force)
    broken = [each for each in found if each.verdict == "broken"]
    only_b = _new_rows(before, after)
    write_json(
        json_out,
        {
            "schema": SCHEMA,
            "a": a.name,
            "b": b.name,
            "forced": force,
            "passed": not broken,
            "rules": list(fail_if or []),
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
