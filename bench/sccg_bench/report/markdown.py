"""The report as Markdown: tables that GitHub renders, no pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from sccg_bench.checks import control_warning
from sccg_bench.report.cells import Table
from sccg_bench.report.summary import summarise
from sccg_bench.report.tables import notes, tables
from sccg_bench.results import Results
from sccg_runtime.files import write_text


def markdown(results: Results, first: Sequence[Table] = ()) -> str:
    """The whole report: summary, warnings, tables (``first`` before all others), notes, machine and provenance."""
    lines = [f"# Bench report{f', {results.direction}' if results.direction else ''}", ""]
    if results.is_simulated:
        lines += ["**Simulated data**: the slices come from the phantom, not from patients.", ""]
    lines += [
        f"- **{card.question}** {escape(card.answer.rstrip('.'))}. {escape(card.detail)}" for card in summarise(results)
    ]
    lines += [f"- **Warning:** {escape(text)}" for text in (*results.warnings, control_warning(results)) if text]
    for table in (*first, *tables(results)):
        lines += ["", f"## {escape(table.title)}", "", escape(table.caption), "", *grid(table)]
    told = [f"- {escape(names)} ({status}): {escape(note)}" for names, status, note in notes(results)]
    lines += ["", "## Notes", "", *told] if told else []
    for title, values in (("Machine", results.machine), ("Provenance", results.provenance)):
        lines += ["", f"## {title}", "", *(f"- {escape(key)}: {escape(str(value))}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def write_markdown(path: Path, results: Results, first: Sequence[Table] = ()) -> None:
    """Write :func:`markdown`, whole or not at all."""
    write_text(path, markdown(results, first))


def escape(text: str) -> str:
    """Text that Markdown and the HTML inside it leave as it is; line breaks become spaces."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def grid(table: Table) -> list[str]:
    """Header and lines of a table in Markdown."""
    rule = [":--" if index in table.text else "--:" for index in range(len(table.header))]
    lines = [table.header, *table.lines]
    cells = [[escape(cell) for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]
