"""Charts as PNG and SVG: latency bars with the paper's line, and latency against drift with the Pareto front."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from sccg_bench.report.cells import milliseconds, pixels
from sccg_bench.results import PAPER_MS, PAPER_SIZE, Results, Row

DPI = 150
_INK, _GRID, _CITED = "#1b2733", "#d5dbe1", "#a03000"
_MARKERS, _POINTS = "osD^vP*X", ("#00627a", "#a03000", "#5a3d8a", "#1d6b2f", "#7a5200")
_COLOURS = {"teacher": "#5b6b7a", "teacher engine": "#5b6b7a", "model": "#00627a"}


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as PNG, without the library's name in it, so that equal figures give equal bytes."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def literal(text: str) -> str:
    """Text as it stands: matplotlib reads what lies between dollar signs as mathematics, and takes UTF-8 alone."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")


def latency_chart(results: Results) -> bytes | None:
    """Bars of p50 on a logarithmic scale, a whisker to p90, and the paper's 2730 ms as a line; None without latency."""
    rows = [row for row in results.rows if row.latency_ms is not None and row.status == "measured"]
    if not rows:
        return None
    figure = Figure(figsize=(8.6, 1.15 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    p50 = [_p50(row) for row in rows]
    above = [
        max(0.0, (row.latency_ms.p90 or value) - value) if row.latency_ms else 0.0
        for row, value in zip(rows, p50, strict=True)
    ]
    axes.barh(places, p50, height=0.6, color=[_COLOURS.get(row.role, _INK) for row in rows])
    axes.errorbar(p50, places, xerr=[[0.0] * len(rows), above], fmt="none", ecolor=_INK, capsize=3, linewidth=1)
    for place, row in enumerate(rows):
        at = row.latency_ms.p90 or _p50(row) if row.latency_ms else 1.0
        axes.annotate(
            f"{milliseconds(row.latency_ms, 'p50')} ms", (at, place), (6, 0), textcoords="offset points", va="center",
            fontsize=9, color=_INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )  # fmt: skip
    axes.axvline(PAPER_MS, color=_CITED, linestyle="--", linewidth=1.4)
    axes.annotate(
        f"paper, RTX 3080 Ti, {pixels(PAPER_SIZE)}: {PAPER_MS:.0f} ms (cited)",
        (PAPER_MS, 1.0), (0, 4), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="bottom", fontsize=9, color=_CITED,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(min(p50) / 2.5, max(PAPER_MS, *p50) * 2.2)
    axes.set_yticks(list(places), [literal(row.name) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"latency per slice{_at(row.size for row in rows)}, p50, ms (logarithmic; whisker: p90)")
    _plain(axes, "x")
    return png_bytes(figure)


def svg_bytes(figure: Figure) -> bytes:
    """A figure as SVG, without date and chance in it, so that equal figures give equal bytes."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "sccg"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def drift_chart(results: Results) -> bytes | None:
    """:func:`drift_figure` as PNG; None with fewer than two models."""
    figure = drift_figure(results)
    return None if figure is None else png_bytes(figure)


def drift_figure(results: Results, *, teacher: bool = False) -> Figure | None:
    """p50 against PSNR to the teacher, with the models that no other beats in both; None with fewer than two models.

    With ``teacher`` its own engines of less than float32 are among them, and its p50 in PyTorch is a line.
    """
    rows = [
        row
        for row in results.rows
        if (row.role == "model" or (teacher and row.role == "teacher engine" and row.precision != "fp32"))
        and row.latency_ms is not None
        and row.figure("drift", "to_teacher_psnr_db") is not None
    ]
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(8.6, max(3.6, 0.26 * (len(rows) + 5))), layout="constrained")
    axes = figure.add_subplot()
    points = [(_p50(row), row.figure("drift", "to_teacher_psnr_db") or 0.0) for row in rows]
    front = pareto(points)
    axes.plot([x for x, _ in front], [y for _, y in front], color=_INK, linewidth=1, zorder=2, label="Pareto front")
    for index, ((x, y), row) in enumerate(zip(points, rows, strict=True)):
        marker, colour = _MARKERS[index % len(_MARKERS)], _POINTS[index % len(_POINTS)]
        axes.plot([x], [y], marker, color=colour, markersize=8, zorder=3, label=literal(row.name))
    controls = [row for row in results.rows if row.role == "control"]
    for row, style in zip(controls, cycle((":", "-.", "--")), strict=False):
        level = row.figure("drift", "to_teacher_psnr_db")
        if level is not None:
            axes.axhline(level, color=_CITED, linestyle=style, linewidth=1.4, label=literal(row.name))
    for row in results.rows:
        if teacher and row.role == "teacher" and row.latency_ms is not None:
            axes.axvline(row.latency_ms.p50, color=_COLOURS["teacher"], linewidth=1.4, label=literal(row.name))
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.15)
    axes.set_xlabel(f"latency per slice{_at(row.size for row in rows)}, p50, ms (logarithmic)")
    axes.set_ylabel(f"PSNR to the teacher{_at(row.quality_size for row in rows)}, dB")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    _plain(axes, "both")
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (latency, fidelity) that no other point beats in both, from fast to faithful."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _at(sizes: Iterable[tuple[int, int] | None]) -> str:
    """At which size all of it was measured, in words; nothing where that is not known."""
    found = {size for size in sizes if size is not None}
    return f" at {' and '.join(pixels(size) for size in sorted(found))}" if found else ""


def _p50(row: Row) -> float:
    return row.latency_ms.p50 if row.latency_ms is not None else 1.0


def _plain(axes: Any, grid: str) -> None:
    """Light grid behind, no box, ink for text; plain numbers on the logarithmic axis."""
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1, 3)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set(color=_INK, fontsize=9)
    axes.yaxis.label.set(color=_INK, fontsize=9)
