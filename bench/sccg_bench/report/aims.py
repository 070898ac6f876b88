"""By how much presets miss what they are for: in the mean over slices, and patient by patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sccg_bench.checks import AIMS, Aim, Limit, Outcome, outcomes
from sccg_bench.report.cells import NOTHING, Table, judged, number
from sccg_bench.report.study import engines, share_of_plain
from sccg_bench.results import Results, Row
from sccg_runtime.direction import Direction

SLIM = "resnet-16x9-in"
"""The student that presets are held beside, trained alike."""


def aims_table(results: Results, presets: Mapping[str, str]) -> Table:
    """One line per aim of a preset that an engine misses, in the mean or for a patient; one where it misses none.

    A preset that has no engine, as export refused it, has a line that says so.

    Parameters
    ----------
    results
        Merged rows of a study.
    presets
        Preset -> name of its student; each has aims.
    """
    rows = [row for row in engines(results).rows if row.role == "model"]
    lines = [
        (preset, alike, *cells)
        for preset, student in presets.items()
        for row in rows
        if (alike := row.name.removeprefix(f"{student}-")) != row.name
        for cells in _missed(row, rows, alike.partition(", ")[0], AIMS[preset], results.direction)
    ]
    header = ("preset", "row", "misses", "asked for", "in the mean", "by", "by, patient by patient")
    caption = (
        "What presets are to keep and do not. Nearness to the teacher is held beside the fastest engine of "
        f"{SLIM} of the same minutes, views and seed, time beside the plain student, where the study has them. "
        f"{' '.join(f'{preset}: {_told(aim)}.' for preset, aim in AIMS.items())}"
    )
    return Table("Aims", caption, header, tuple(lines), ("model",) * len(lines), (0, 1, 2, 3, 6))


def _missed(
    row: Row, rows: list[Row], alike: str, aim: Aim, direction: Direction | None
) -> Iterator[tuple[str, str, str, str, str]]:
    """Cells of the aims that a row or a patient of it misses, or how many there are if there is none."""
    if row.engine == "torch":
        yield "no engine", NOTHING, NOTHING, NOTHING, NOTHING
        return
    slim = next((one for one in rows if one.name.partition(", ")[0] == f"{SLIM}-{alike}"), None)
    theirs = {} if slim is None else slim.patients()
    patients = {
        case: {one.limit.label: one for one in _held(own, theirs.get(case), None, aim, direction)}
        for case, own in row.patients().items()
    }
    held = _held(row, slim, share_of_plain(row, rows), aim, direction)
    lines = 0
    for one in held:
        by = _by(one)
        own = {case: _by(found[one.limit.label]) for case, found in patients.items() if one.limit.label in found}
        each = ", ".join(f"{case} {amount}" for case, amount in own.items() if amount) if len(patients) > 1 else ""
        if by or each:
            lines += 1
            yield one.limit.label, one.limit.text, judged(one), by or NOTHING, each or NOTHING
    if not lines:
        yield f"none of {sum(one.met is not None for one in held)}", NOTHING, NOTHING, NOTHING, NOTHING


def _held(
    row: Row, slim: Row | None, share: float | None, aim: Aim, direction: Direction | None
) -> tuple[Outcome, ...]:
    """A row held against every aim that can be told; nearness takes the slim ResNet's row, time the plain student's."""
    time = Limit("time, of plain", "", "", high=aim.share_of_plain)
    near = None if slim is None else slim.figure("drift", "to_teacher_psnr_head_db")
    over_slim = None if near is None else round(near + aim.over_slim_db, 3)
    floors = (
        Limit("to teacher, head: dB", "drift", "to_teacher_psnr_head_db", low=over_slim),
        Limit("to teacher, whole: dB", "drift", "to_teacher_psnr_db", low=aim.to_teacher_db.get(direction)),
    )
    timed = () if share is None else (Outcome(time, share, time.met(share)),)
    return (*timed, *outcomes(row, [limit for limit in floors if limit.low is not None]), *outcomes(row, aim.limits))


def _by(outcome: Outcome) -> str:
    """By how much a limit is missed, with three decimals or as many as show it; empty where it is met or not known."""
    if outcome.met is not False or outcome.value is None:
        return ""
    amount = outcome.limit.missed_by(outcome.value)
    return number(amount, next((digits for digits in range(3, 12) if round(amount, digits)), 12))


def _told(aim: Aim) -> str:
    """Aims in words, without the guards that all share."""
    ratio, correlation, *_ = aim.limits
    whole = ", ".join(f"{direction} {low:g}" for direction, low in aim.to_teacher_db.items())
    words = (
        f"time at most {aim.share_of_plain:g} of the plain student's",
        f"{number(aim.over_slim_db, 1, signed=True)} dB to {SLIM}",
        f"to teacher, whole, at least {whole} dB" if whole else "",
        f"{ratio.label} {ratio.text}",
        f"{correlation.label} {correlation.text}",
    )
    return ", ".join(filter(None, words))
