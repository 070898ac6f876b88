"""The report for spreadsheets and statistics: one line per model, and one per model and slice."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sccg_bench.aggregate import GROUPS
from sccg_bench.latency import Latency
from sccg_bench.results import FIGURES, Results, finite
from sccg_runtime.files import write_text

_WORDS = ("name", "role", "status", "engine", "engine_version", "device", "precision", "quantizer", "threads")
_NUMBERS = ("size_mib", "peak_rss_mib", "device_p50_ms", "speedup_vs_paper", "speedup_vs_teacher")


def models_csv(results: Results) -> str:
    """One line per row of the results, the cited and the missing ones included; units are in the names.

    Columns are named as in :mod:`sccg_bench.compare`: ``latency_ms.p50``, ``quality.ssim``. No value: empty.
    """
    lines = []
    for row in results.rows:
        line: dict[str, Any] = {name: getattr(row, name) for name in _WORDS}
        line |= {"precision_ran": _counted(row.precision_ran), "float_layers": _joined(row.float_layers)}
        for name, size in (("latency_ms", row.size), ("latency_native_ms", row.quality_size)):
            latency: Latency | None = getattr(row, name)
            line[f"{name}.size"] = "x".join(map(str, size)) if size and latency else None
            line |= {f"{name}.{each.name}": getattr(latency, each.name, None) for each in fields(Latency)}
        line |= {name: getattr(row, name) for name in _NUMBERS}
        for group in FIGURES:
            line |= {f"{group}.{name}": value for name, value in (getattr(row, group) or {}).items()}
        line |= {f"counts.{name}": value for name, value in (row.counts or {}).items()}
        line |= {"detail_against": row.detail_against, "engine_drift_from": row.engine_drift_from}
        line |= {"direction": results.direction, "simulated_data": results.is_simulated}
        lines.append(line | {"cpu": results.machine.get("cpu"), "note": row.note})
    return _csv(lines, ())


def slices_csv(results: Results) -> str:
    """One line per model and slice; without slices the header alone."""
    lines = []
    for row in results.rows:
        for part in row.per_slice:
            line: dict[str, Any] = {"name": row.name, "role": row.role}
            line |= {"case": part.get("case"), "slice": part.get("slice")}
            for group in GROUPS:
                line |= {f"{group}.{name}": value for name, value in (part.get(group) or {}).items()}
            line |= {f"spot.{name}": value for name, value in (part.get("spot") or {}).items()}
            counted, dropped = part.get("counted") or (), part.get("not_finite") or ()
            lines.append(line | {"counted": " ".join(counted), "not_finite": " ".join(dropped)})
    return _csv(lines, ("name", "role", "case", "slice"))


def write_csv(folder: Path, results: Results) -> list[Path]:
    """Write ``models.csv`` and ``slices.csv``, each whole or not at all; their paths."""
    paths = [folder / "models.csv", folder / "slices.csv"]
    for path, text in zip(paths, (models_csv(results), slices_csv(results)), strict=True):
        write_text(path, text)
    return paths


def _csv(lines: Sequence[Mapping[str, Any]], header: Sequence[str]) -> str:
    """Columns in order of first appearance; texts that a spreadsheet would take for a formula are quoted."""
    names = list(dict.fromkeys([*header, *(name for line in lines for name in line)]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(line.get(name)) for name in names] for line in lines)
    return stream.getvalue()


def _cell(value: Any) -> str:
    known = finite(value)
    if isinstance(known, str):
        text = " ".join(known.split())
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return "" if known is None else str(known)


def _counted(counts: Mapping[str, Any] | None) -> str | None:
    return None if counts is None else " ".join(f"{name}:{count}" for name, count in counts.items())


def _joined(names: Sequence[str] | None) -> str | None:
    return None if names is None else " ".join(names)
