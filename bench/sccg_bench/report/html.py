"""One self-contained ``report.html``: opens from disk, asks no network, prints cleanly; its script moves sliders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sccg_bench.checks import best_row, control_warning
from sccg_bench.page import render
from sccg_bench.report.charts import drift_chart, latency_chart
from sccg_bench.report.sheets import Strip
from sccg_bench.report.summary import summarise
from sccg_bench.report.tables import notes, tables
from sccg_bench.results import Results, finite
from sccg_runtime.files import write_text

_DIRECTIONS = {"mr2ct": "MR → synthetic CT", "ct2mr": "CT → synthetic MR"}


def html(results: Results, strips: Sequence[Strip] = ()) -> str:
    """The report; every text is escaped, every picture is inside the file.

    Parameters
    ----------
    results
        One run.
    strips
        From :func:`sccg_bench.report.sheets.strips`; none leaves the pictures out.
    """
    best = best_row(results)
    shown: dict[str, list[Strip]] = {}
    for strip in strips:
        shown.setdefault(strip.row, []).append(strip)
    return render(
        "report/templates",
        "report.html.j2",
        title=f"Bench report: {_DIRECTIONS.get(results.direction or '', 'MR ↔ CT')}",
        results=results,
        cards=summarise(results),
        warnings=[text for text in (*results.warnings, control_warning(results)) if text],
        latency_chart=latency_chart(results),
        drift_chart=drift_chart(results),
        tables=tables(results),
        notes=notes(results),
        best=best.name if best is not None else None,
        strips=shown,
        machine=_lines(results.machine),
        provenance=_lines(results.provenance),
    )


def write_html(path: Path, results: Results, strips: Sequence[Strip] = ()) -> None:
    """Write :func:`html`, whole or not at all."""
    write_text(path, html(results, strips))


def _lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value as text; lists of words in one line, tables of words in a line each, deeper things as JSON."""
    lines = []
    for key, value in finite(values).items():
        if isinstance(value, list) and all(not isinstance(part, dict | list) for part in value):
            text = ", ".join(str(part) for part in value)
        elif isinstance(value, dict) and all(not isinstance(part, dict | list) for part in value.values()):
            text = "\n".join(f"{name}: {part}" for name, part in value.items())
        elif isinstance(value, dict | list):
            text = json.dumps(value, ensure_ascii=False)
        else:
            text = "unknown" if value is None else str(value)
        lines.append((str(key).replace("_", " "), text))
    return lines
