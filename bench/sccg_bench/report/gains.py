"""What a change to a study's students is worth: the same seeds with and without it, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from sccg_bench.report.cells import NOTHING, Table, number
from sccg_bench.results import Results
from sccg_runtime.errors import InputError

MATTERS_DB = 0.3
"""A gain or loss that counts, if every seed shows it."""
Near = Mapping[str, float]
"""Seed -> PSNR to the teacher inside the head, dB."""


def gains_table(results: Results, against: str) -> Table:
    """One line per row of a study, all seeds in it, as networks in PyTorch and as OpenVINO's engines.

    Engines of other kinds, which some runs hold besides, are no measure of a change to students.

    Parameters
    ----------
    results
        Merged rows; each run is called ``ROW-seedN``.
    against
        ROW that all others with the same seeds are held against.

    Raises
    ------
    InputError
        There is no such row.
    """
    networks: defaultdict[str, dict[str, float]] = defaultdict(dict)
    engines: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in results.rows:
        near = row.figure("drift", "to_teacher_psnr_head_db")
        name, seeded, seed = row.name.rpartition(", ")[2].rpartition("-seed")
        found = {"torch": networks, "openvino": engines}.get(row.engine or "")
        if seeded and near is not None and found is not None:
            found[name][seed] = near
    names = {*networks, *engines}
    check_row(against, names)
    lines = []
    for name in sorted(names, key=lambda name: (name != against, name)):
        gains = _gains(networks[name], networks[against])
        seeds = sorted({*networks[name], *engines[name]})
        lines.append(
            (
                name,
                ", ".join(seeds),
                _each(networks[name], seeds),
                NOTHING if name == against else _each(gains, seeds, signed=True),
                _each(engines[name], seeds),
                NOTHING if name == against else _each(_gains(engines[name], engines[against]), seeds, signed=True),
                NOTHING if name == against else _verdict(gains.values()),
            )
        )
    header = ("row", "seeds", "PyTorch: dB", "gain: dB", "engine: dB", "gain: dB", "verdict")
    caption = (
        f"PSNR to the teacher inside the head, seed by seed, and the gain over {against} with the same seed. A verdict "
        f"takes two seeds or more that all show {MATTERS_DB:g} dB to one side in PyTorch. Engine: OpenVINO's."
    )
    return Table("Gains", caption, header, tuple(lines), tuple("model" for _ in lines), (0, 1, len(header) - 1))


def check_row(row: str, names: Collection[str]) -> None:
    """InputError if ``row`` is none of ``names``."""
    if row not in names:
        raise InputError(f"no row is called {row}; there are {', '.join(sorted(names)) or 'none'}")


def _gains(one: Near, base: Near) -> dict[str, float]:
    return {seed: near - base[seed] for seed, near in one.items() if seed in base}


def _each(figures: Near, seeds: Iterable[str], *, signed: bool = False) -> str:
    """One figure per seed, in order; nothing in the place of one that is missing."""
    found = [number(figures[seed], 2, signed) if seed in figures else NOTHING for seed in seeds]
    return ", ".join(found) if figures else NOTHING


def _verdict(gains: Iterable[float]) -> str:
    found = list(gains)
    if len(found) < 2:
        return NOTHING
    return "gains" if min(found) >= MATTERS_DB else "loses" if max(found) <= -MATTERS_DB else "neither"
