"""The first screen: how fast, how faithful, can I ship it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sccg_bench.checks import Outcome, best_row, limits, outcomes
from sccg_bench.report.cells import judged, milliseconds, number, pixels, times
from sccg_bench.results import PAPER_MS, PAPER_SIZE, Results, Row


@dataclass(frozen=True, slots=True)
class Card:
    """One question with its answer; ``tone`` colours it: good, bad or open."""

    question: str
    answer: str
    detail: str
    tone: Literal["good", "bad", "open"]


def summarise(results: Results) -> list[Card]:
    """The three answers, about the row that :func:`sccg_bench.checks.best_row` names."""
    row = best_row(results)
    if row is None:
        return [Card("How fast?", "No model was measured.", "See the notes for the reasons.", "bad")]
    return [_fast(row), _faithful(row), _ship(results, row)]


def _fast(row: Row) -> Card:
    answer = f"{milliseconds(row.latency_ms, 'p50')} ms per slice"
    where = ", ".join(
        filter(
            None,
            (row.name, row.engine, row.precision, _count(row.threads, "threads") if row.threads else None, row.device),
        )
    )
    asked = f" of {row.latency_ms.n:,} queries" if row.latency_ms and row.latency_ms.n else ""
    parts = [f"p50{asked} at {pixels(row.size)}, measured: {where}."]
    if row.latency_native_ms is not None and row.quality_size != row.size:
        parts.append(
            f"{milliseconds(row.latency_native_ms, 'p50')} ms at {pixels(row.quality_size)}, the size of the slices."
        )
    if row.speedup_vs_teacher is not None:
        parts.append(f"{times(row.speedup_vs_teacher)} the teacher in PyTorch FP32, same machine and run.")
    parts.append(f"Paper: {PAPER_MS:.0f} ms at {pixels(PAPER_SIZE)} on an RTX 3080 Ti (cited, not measured).")
    unsteady = row.latency_ms is not None and row.latency_ms.is_unsteady
    if unsteady:
        parts.append("The machine was not quiet: see the warnings.")
    return Card("How fast?", answer, " ".join(parts), "open" if unsteady else "good")


def _faithful(row: Row) -> Card:
    psnr = row.figure("drift", "to_teacher_psnr_db")
    over = f"{_slices(row)} at {pixels(row.quality_size)}"
    if psnr is None:
        own = row.figure("quality", "psnr_db")
        if own is None:
            return Card("How faithful?", "Not measured.", "There was no slice with a teacher or a reference.", "open")
        return Card("How faithful?", f"{own:.1f} dB to the reference", f"Over {over}. No teacher's output.", "open")
    parts = [f"Mean over {over}, measured."]
    parts.append(f"High-frequency energy {number(row.figure('quality', 'hf_ratio'), 2)} of the teacher's (1 is right),")
    parts.append(f"correlation {number(row.figure('quality', 'hf_corr'), 2)}.")
    marked = row.landmarks or {}
    if "worst" in marked:
        worst = _worst_psnr(row)
        parts.append(f"Worst slice {marked['worst']}{f': {worst:.1f} dB' if worst is not None else ''}.")
    spots = [(part.get("spot") or {}).get("difference_u8") for part in row.per_slice]
    known = [value for value in spots if value is not None]
    if "spot" in marked and known:
        largest = number(max(known, key=abs), 0, signed=True)
        parts.append(f"Largest local difference {largest} of 255, in {marked['spot']}.")
    return Card("How faithful?", f"{psnr:.1f} dB to the teacher", " ".join(parts), "open")


def _ship(results: Results, row: Row) -> Card:
    found = outcomes(row, limits(results.direction))
    missed = [each for each in found if each.met is False]
    unknown = [each for each in found if each.met is None]
    closing = f"{_slices(row)}. Engineering limits only: no clinical validation, no medical device."
    if row.engine_drift_from == "export":
        closing = f"Engine drift from its export, not measured here. {closing}"
    if results.is_simulated:
        closing = f"Simulated data: says nothing about patients. {closing}"
    if missed:
        listed = "; ".join(f"{_named(each, row)} {judged(each)}, not {each.limit.text}" for each in missed)
        return Card(
            "Can I ship it?",
            f"Not as it is: {len(missed)} of {len(found)} limits missed",
            f"{listed}. {closing}",
            "bad",
        )
    if unknown:
        listed = "; ".join(each.limit.label for each in unknown)
        answer = f"Open: {len(unknown)} of {len(found)} limits not measured"
        return Card("Can I ship it?", answer, f"Not measured: {listed}. {closing}", "open")
    return Card("Can I ship it?", f"All {len(found)} limits met", closing, "good")


def _named(outcome: Outcome, row: Row) -> str:
    worst = row.worst_slice if outcome.limit.of_worst_slice else None
    return outcome.limit.label if worst is None else f"{outcome.limit.label} ({worst[0]}, inside the head)"


def _slices(row: Row) -> str:
    counts = row.counts or {}
    return " of ".join(_count(counts.get(name, 0), name) for name in ("slices", "patients"))


def _count(count: int, name: str) -> str:
    return f"{count} {name[:-1] if count == 1 else name}"


def _worst_psnr(row: Row) -> float | None:
    values = [
        value for part in row.per_slice if (value := (part.get("drift") or {}).get("to_teacher_psnr_db")) is not None
    ]
    return min(values, default=None)
