"""The table on the terminal (rich): what fits on a screen, the rest is in the report."""

from __future__ import annotations

from typing import Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from sccg_bench.checks import control_warning
from sccg_bench.report.tables import Table, drift_table, engine_table, latency_table, quality_table, series_table
from sccg_bench.results import Results

_STYLES = {"failed": "bold red", "not measured": "dim", "cited": "dim", "teacher": "bold", "control": "yellow"}
_WIDE = 140
_NARROW = {
    "status",
    "native p50 ms",
    "streams",
    "native size",
    "p90 ms",
    "Δ SSIM",
    "head: SSIM",
    "head: MAE",
    "worst 5 % MAE",
    "SSIM",
}
"""Left out as well where the terminal is narrower than ``_WIDE`` columns; the report has them all."""
_LEFT_OUT = {
    "Latency": {"p99 ms", "size", "threads", "device", "engine", "ran", "spread"},
    "Drift: what compression cost": {"phase ratio", "Δ MAE", "Δ IoU", "MAE", "head SSIM"},
    "DICOM to DICOM": {"lowest to highest", "lowest to highest, cold"},
    "Quality": {"patients", "capped", "empty masks"},
}


def terminal(results: Results, width: int = _WIDE) -> RenderableType:
    """Latency, whole series, drift, engine drift and quality, the notes of rows that hold no figures, and warnings.

    ``width`` is that of the terminal in characters.
    """
    parts: list[RenderableType] = []
    if results.is_simulated:
        parts.append(Text("Simulated data: these slices come from the phantom, not from patients.", style="yellow"))
    shown = (
        latency_table(results),
        series_table(results),
        drift_table(results),
        engine_table(results),
        quality_table(results),
    )
    parts.extend(_laid_out(table, width) for table in shown if table.lines)
    for row in results.rows:
        if row.note and row.role != "control":
            line = Text(f"{row.name}: ", style=_STYLES.get(row.status, ""))
            parts.append(line.append(f"{row.status}. {row.note}"))
    warnings = filter(None, (*results.warnings, control_warning(results)))
    parts.extend(Text(f"Warning: {warning}", style="bold yellow") for warning in warnings)
    return Group(*parts)


def show(results: Results, console: Console | None = None) -> None:
    """Write :func:`terminal` to a console; standard output if none is given."""
    console = console or Console()
    console.print(terminal(results, console.width))


def _laid_out(table: Table, width: int) -> RichTable:
    left_out = _LEFT_OUT.get(table.title, set()) | (_NARROW if width < _WIDE else set())
    kept = [index for index, label in enumerate(table.header) if label not in left_out]
    laid = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in kept:
        justify: Literal["left", "right"] = "left" if index in table.text else "right"
        laid.add_column(Text(table.header[index]), justify=justify, overflow="fold", no_wrap=index in table.text)
    for line, mark in zip(table.lines, table.marks, strict=True):
        laid.add_row(*(Text(line[index]) for index in kept), style=_STYLES.get(mark, ""))
    return laid
