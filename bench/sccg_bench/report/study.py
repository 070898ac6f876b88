"""What a study shows: the engines of many students of one teacher, fastest first, and which limits each one misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from sccg_bench.checks import FRONTIER, outcomes
from sccg_bench.report.cells import NOTHING, Table, mean_figure, milliseconds, number, times
from sccg_bench.results import Results, Row

_TO_TEACHER = ("to teacher, head: dB", "worst slice, head: dB", "whole: dB", "hf ratio", "hf corr", "phase ratio")
"""Header of :func:`_to_teacher`."""


def engines(results: Results) -> Results:
    """Merged results with the engines of each student, else its PyTorch row; called by their runs, fastest first.

    Of what is not the only engine, or not OpenVINO's, the name says which it is.
    """
    common = [row for row in results.rows if row.role != "model"]
    found = [row for row in results.rows if row.role == "model"]
    labels = {row.name: row.name.rpartition(", ")[2] for row in found}
    exported = Counter(labels[row.name] for row in found if row.engine != "torch")

    def name(row: Row) -> str:
        label = labels[row.name]
        if row.engine == "torch":
            return f"{label}, PyTorch"
        return label if exported[label] == 1 and row.engine in (None, "openvino") else f"{label}, {row.engine}"

    named = [replace(row, name=name(row)) for row in found if row.engine != "torch" or not exported[labels[row.name]]]
    return replace(results, rows=(*common, *sorted(named, key=_share_of_teacher)))


def study_table(results: Results) -> Table:
    """One line per row of :func:`engines` that was measured.

    ``of plain`` is :func:`share_of_plain`: a ratio that other runs and machines share.
    """
    rows = [row for row in engines(results).rows if row.drift or row.role == "teacher"]
    lines = [
        (
            row.name,
            computed(row),
            milliseconds(row.latency_ms, "p50"),
            number(share_of_plain(row, rows), 2),
            times(row.speedup_vs_teacher),
            *_to_teacher(row),
            mean_figure(row, "engine_drift", "engine_to_fp32_psnr_head_db", 1),
            NOTHING if row.role == "teacher" else missed(row),
        )
        for row in rows
    ]
    header = (
        *("model", "precision", "p50 ms", "of plain", "vs teacher", *_TO_TEACHER, "engine to FP32, head: dB", "misses"),
    )
    held = ", ".join(f"{limit.label} {limit.text}" for limit in FRONTIER)
    caption = f"Engines, fastest first. Limits that may be missed: {held}. The blurred teachers must miss some."
    return Table(
        "Students",
        caption,
        header,
        tuple(lines),
        tuple(row.role for row in rows),
        (0, 1, len(header) - 1),
    )


def students_by_patient(results: Results) -> Table:
    """One line per patient of each student of :func:`engines`, held against the limits on its own."""
    lines = []
    for row in engines(results).rows:
        for case, own in row.patients().items() if row.role == "model" else ():
            lines.append(
                (
                    row.name,
                    case,
                    str(own.per_patient[0].get("slices")),
                    *_to_teacher(own),
                    number(own.figure("drift", "delta_psnr_db"), 2, signed=True),
                    mean_figure(own, "engine_drift", "engine_to_fp32_psnr_head_db", 1),
                    missed(own),
                )
            )
    header = ("model", "patient", "slices", *_TO_TEACHER, "Δ PSNR: dB", "engine to FP32, head: dB", "misses")
    caption = "Means over the slices of each patient. Δ PSNR: against the real image, where there is one."
    return Table(
        "Students, patient by patient", caption, header, tuple(lines), ("model",) * len(lines), (0, 1, len(header) - 1)
    )


def computed(row: Row) -> str:
    """Precisions that ran, the one asked for first, such as ``int8 + bf16``; if unknown, what was asked for."""
    ran = sorted(row.precision_ran or {}, key=lambda name: (name != row.precision, name))
    return " + ".join(ran) or row.precision or NOTHING


def share_of_plain(row: Row, rows: Iterable[Row]) -> float | None:
    """A row's time over that of the plain student among ``rows``, each by the teacher's in its own run; else None.

    A student's engine is held against the plain student's of the same kind.
    """
    plain = next(
        (
            one.speedup_vs_teacher
            for one in rows
            if one.role == "model" and "-plain" in one.name and (row.role != "model" or row.engine == one.engine)
        ),
        None,
    )
    return plain / row.speedup_vs_teacher if plain and row.speedup_vs_teacher else None


def missed(row: Row) -> str:
    """Labels of the limits of :data:`sccg_bench.checks.FRONTIER` that a row misses; ``none``, or of how many measured.

    An MR output has no bone to overlap, a network no engine.
    """
    found = outcomes(row, FRONTIER)
    labels = [outcome.limit.label for outcome in found if outcome.met is False]
    measured = sum(outcome.met is not None for outcome in found)
    return ", ".join(labels) or _without(measured, len(found))


def _to_teacher(row: Row) -> tuple[str, ...]:
    """How near a row comes to the teacher, in the cells of a table."""
    worst = row.worst_slice
    return (
        mean_figure(row, "drift", "to_teacher_psnr_head_db", 2),
        NOTHING if worst is None else f"{number(worst[1], 2)} ({worst[0]})",
        mean_figure(row, "drift", "to_teacher_psnr_db", 2),
        *(number(_against_teacher(row, name), 3) for name in ("hf_ratio", "hf_corr", "phase_ratio")),
    )


def _without(measured: int, limits: int) -> str:
    return "not measured" if not measured else "none" if measured == limits else f"none of {measured}"


def _against_teacher(row: Row, name: str) -> float | None:
    """A figure of detail; the teacher's own is held against the real image, and has no place in the column."""
    return row.figure("quality", name) if row.detail_against == "teacher" else None


def _share_of_teacher(row: Row) -> float:
    return 1 / row.speedup_vs_teacher if row.speedup_vs_teacher else float("inf")
