"""Several bench runs of one direction as one table: models of all of them, what is common to them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sccg_bench.results import Results, Row
from sccg_runtime.errors import InputError

_SHARED = {
    "cases": "on other cases",
    "data": "on another data set",
    "simulated_data": "on data of another kind",
    "teacher_sha256": "with another teacher",
}
SEVERAL_RUNS = "models were timed in several runs, each beside the teacher: hold 'vs teacher' side by side, not ms"


def merge(runs: Mapping[str, Results]) -> Results:
    """Put the measured models of all runs behind the teacher and the controls of the first that has them.

    Parameters
    ----------
    runs
        What a run is called in the table -> its results. At least one.

    Raises
    ------
    InputError
        There is no run, or they are of several directions or teachers, or were measured on different slices.
    """
    if not runs:
        raise InputError("there is no bench run to put into a table")
    first = next(iter(runs.values()))
    for label, run in runs.items():
        if run.direction != first.direction:
            raise InputError(f"{label} is {run.direction}, the others are {first.direction}")
        for name, told in _SHARED.items():
            one, other = run.provenance.get(name), first.provenance.get(name)
            if one != other and (name == "cases" or None not in (one, other)):  # earlier versions say less
                raise InputError(f"{label} was measured {told} than the others")
        if len({one for one in (_slices(run), _slices(first)) if one}) > 1:
            raise InputError(f"{label} was measured on other slices than the others: measure it again on theirs")
    common: dict[str, Row] = {}
    models: list[Row] = []
    for label, run in runs.items():
        for row in run.rows:
            if row.role == "model" and row.status == "measured":
                models.append(replace(row, name=f"{row.name}, {label}"))
            elif row.role != "model":
                common.setdefault(row.name, row)
    warnings = _warnings(runs)
    if len({row.latency_ms for run in runs.values() for row in run.rows if row.role == "teacher"}) > 1:
        warnings.insert(0, SEVERAL_RUNS)
    machines = {_machine(run) for run in runs.values()}
    if len(machines) > 1:
        warnings.insert(0, f"measured on different machines: {'; '.join(sorted(machines))}")
    provenance = {
        name: value
        for name, value in first.provenance.items()
        if all(run.provenance.get(name) == value for run in runs.values())
    }
    if any(run.is_simulated for run in runs.values()):
        provenance["simulated_data"] = True
    return replace(
        first,
        provenance=provenance | {"runs": list(runs)},
        rows=(*common.values(), *models),
        warnings=tuple(warnings),
    )


def _slices(run: Results) -> frozenset[str]:
    """``case/slice`` of all that figures are of; empty where the run does not say."""
    return frozenset(f"{part.get('case')}/{part.get('slice')}" for row in run.rows for part in row.per_slice)


def _machine(run: Results) -> str:
    sets = ", ".join(run.machine.get("instruction_sets") or ())
    return f"{run.machine.get('cpu')}{f' ({sets})' if sets else ''}"


def _warnings(runs: Mapping[str, Results]) -> list[str]:
    """Every warning once, behind the names of its runs unless it is of all."""
    of: dict[str, list[str]] = {}
    for label, run in runs.items():
        for text in run.warnings:
            of.setdefault(text, []).append(label)
    return [text if len(labels) == len(runs) else f"{', '.join(labels)}: {text}" for text, labels in of.items()]
