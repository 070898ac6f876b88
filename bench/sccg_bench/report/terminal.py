"""The table on the terminal (rich): what fits on a screen, the rest is in the report."""

from __future__ import annotations

from typing import Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from sccg_bench.checks import control_warning
from sccg_bench.report.cells import Table
from sccg_bench.report.tables import drift_table, engine_table, latency_table, notes, quality_table, series_table
from sccg_bench.results import Results

_STYLES = {"failed": "bold red", "not measured": "dim", "cited": "dim", "teacher": "bold", "control": "yellow"}
_WANTED = {
    "Latency": (
        *("p50 ms", "vs teacher", "precision", "n", "peak MiB", "MiB on disk", "slices/s (streams; n)"),
        *("vs paper (cited)", "native p50 ms", "p90 ms", "spread", "native size"),
    ),
    "DICOM to DICOM": ("ms per slice", "cold start ms", "slices", "repeats"),
    "Drift: what compression cost": (
        *("PSNR dB", "hf ratio", "hf corr", "head PSNR dB", "Δ PSNR", "worst slice", "SSIM", "worst 5 % MAE", "Δ SSIM"),
    ),
    "Engine drift": ("PSNR dB", "Δ PSNR", "measured", "head PSNR dB", "SSIM", "MAE", "Δ SSIM"),
    "Quality": (
        *("PSNR dB", "SSIM", "MAE", "MAE HU", "IoU foreground", "IoU bone", "slices", "head: PSNR dB", "PSNR HU"),
        *("SSIM HU", "head: SSIM", "head: MAE"),
    ),
}
"""Columns for the terminal, most wanted first; those behind the first that does not fit are in the report only."""
_EDGES, _GAP = 2, 3
"""Characters beside a table and between its columns."""
_NAME = 28
"""Characters of a model's name on one line; longer ones are folded where the terminal is narrow."""


def terminal(results: Results, width: int = 140) -> RenderableType:
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
    for names, status, note in notes(results):
        if status != "measured":
            parts.append(Text(f"{names}: ", style=_STYLES[status]).append(f"{status}. {note}"))
    warnings = filter(None, (*results.warnings, control_warning(results)))
    parts.extend(Text(f"Warning: {warning}", style="bold yellow") for warning in warnings)
    return Group(*parts)


def show(results: Results, console: Console | None = None) -> None:
    """Write :func:`terminal` to a console; standard output if none is given."""
    console = console or Console()
    console.print(terminal(results, console.width))


def _laid_out(table: Table, width: int) -> RichTable:
    """The wanted columns that fit, in the report's order; rows of what is not here are left to the notes."""
    widths = {0: min(_NAME, _width(table, 0))}
    room = width - _EDGES - widths[0]
    for label in _WANTED[table.title]:
        if label in table.header:
            index = table.header.index(label)
            room -= _GAP + _width(table, index)
            if room < 0:
                break
            widths[index] = _width(table, index)
    widths[0] = min(_width(table, 0), width - _EDGES - sum(_GAP + widths[index] for index in widths if index))
    laid = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in sorted(widths):
        justify: Literal["left", "right"] = "left" if index in table.text else "right"
        laid.add_column(Text(table.header[index]), justify=justify, overflow="fold", width=widths[index])
    for line, mark in zip(table.lines, table.marks, strict=True):
        if mark != "not measured":
            laid.add_row(*(Text(line[index]) for index in sorted(widths)), style=_STYLES.get(mark, ""))
    return laid


def _width(table: Table, index: int) -> int:
    """Characters that a column needs without breaking a cell or a word of its header."""
    return max(len(text) for text in (*table.header[index].split(), *(line[index] for line in table.lines)))
