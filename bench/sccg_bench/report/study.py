"""What a study shows: the engines of many students of one teacher, fastest first, and which limits each one misses."""

from __future__ import annotations

from dataclasses import replace

from sccg_bench.checks import FRONTIER, WORST_SLICE_DB, outcomes
from sccg_bench.report.cells import NOTHING, Table, milliseconds, number, times
from sccg_bench.results import Results, Row


def engines(results: Results) -> Results:
    """Merged results with one row per student, called by its run: its engine, else its PyTorch row; fastest first."""
    common = [row for row in results.rows if row.role != "model"]
    found = [row for row in results.rows if row.role == "model"]
    labels = {row.name: row.name.rpartition(", ")[2] for row in found}
    exported = {labels[row.name] for row in found if row.engine != "torch"}
    named = [
        replace(row, name=labels[row.name] if row.engine != "torch" else f"{labels[row.name]}, PyTorch")
        for row in found
        if row.engine != "torch" or labels[row.name] not in exported
    ]
    return replace(results, rows=(*common, *sorted(named, key=_share_of_teacher)))


def study_table(results: Results) -> Table:
    """One line per row of :func:`engines` that was measured.

    ``of plain`` is the time over that of the first student whose name has ``-plain``, both by the teacher's in the same
    run: a ratio that other runs and machines share.
    """
    rows = [row for row in engines(results).rows if row.drift or row.role == "teacher"]
    plain = next((row.speedup_vs_teacher for row in rows if row.role == "model" and "-plain" in row.name), None)
    lines = []
    for row in rows:
        worst = _worst(row)
        lines.append(
            (
                row.name,
                computed(row),
                milliseconds(row.latency_ms, "p50"),
                number(plain / row.speedup_vs_teacher if plain and row.speedup_vs_teacher else None, 2),
                times(row.speedup_vs_teacher),
                number(row.figure("drift", "to_teacher_psnr_head_db"), 2),
                NOTHING if worst is None else f"{number(worst[1], 2)} ({worst[0]})",
                number(row.figure("drift", "to_teacher_psnr_db"), 2),
                number(_against_teacher(row, "hf_ratio"), 3),
                number(_against_teacher(row, "hf_corr"), 3),
                number(_against_teacher(row, "phase_ratio"), 2),
                number(row.figure("engine_drift", "engine_to_fp32_psnr_head_db"), 1),
                NOTHING if row.role == "teacher" else missed(row),
            )
        )
    header = (
        *("model", "precision", "p50 ms", "of plain", "vs teacher", "to teacher, head: dB", "worst slice, head: dB"),
        *("whole: dB", "hf ratio", "hf corr", "phase ratio", "engine to FP32, head: dB", "misses"),
    )
    held = ", ".join(f"{limit.label} {limit.text}" for limit in FRONTIER)
    caption = (
        f"Engines, fastest first. Limits that may be missed: {held}, worst slice at most {WORST_SLICE_DB:g} dB under "
        "the mean. The blurred teachers must miss some."
    )
    return Table(
        "Students",
        caption,
        header,
        tuple(lines),
        tuple(row.role for row in rows),
        (0, 1, len(header) - 1),
    )


def computed(row: Row) -> str:
    """Precisions that ran, the one asked for first, such as ``int8 + bf16``; if unknown, what was asked for."""
    ran = sorted(row.precision_ran or {}, key=lambda name: (name != row.precision, name))
    return " + ".join(ran) or row.precision or NOTHING


def missed(row: Row) -> str:
    """Labels of the limits of :data:`sccg_bench.checks.FRONTIER` that a row misses, or ``none``; ``not measured``."""
    found = outcomes(row, FRONTIER)
    labels = [outcome.limit.label for outcome in found if outcome.met is False]
    worst, mean = _worst(row), row.figure("drift", "to_teacher_psnr_head_db")
    if worst is not None and mean is not None and worst[1] < mean - WORST_SLICE_DB:
        labels.append("worst slice")
    measured = worst is not None or any(outcome.met is not None for outcome in found)
    return ", ".join(labels) or ("none" if measured else "not measured")


def _worst(row: Row) -> tuple[str, float] | None:
    """``case/slice`` and PSNR to the teacher inside the head, dB, of the slice that has the lowest."""
    found = [
        (f"{part.get('case')}/{part.get('slice')}", value)
        for part in row.per_slice
        if (value := (part.get("drift") or {}).get("to_teacher_psnr_head_db")) is not None
    ]
    return min(found, key=lambda each: each[1], default=None)


def _against_teacher(row: Row, name: str) -> float | None:
    """A figure of detail; the teacher's own is held against the real image, and has no place in the column."""
    return row.figure("quality", name) if row.detail_against == "teacher" else None


def _share_of_teacher(row: Row) -> float:
    return 1 / row.speedup_vs_teacher if row.speedup_vs_teacher else float("inf")
