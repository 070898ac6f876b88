"""``plan``: the table of students and the largest that fits a latency budget here, for people and for ``distill``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_compress import runs
from sccg_compress.console import result, say, write_json
from sccg_compress.verb_options import JsonOption, parse_size
from sccg_runtime.errors import InputError, RefusedError

if TYPE_CHECKING:
    from sccg_compress.planning import Timed, Timing

SIZE = (512, 512)


def plan(
    budget_ms: Annotated[float, typer.Option(help="Largest p50 of one slice, single stream, in ms.")],
    target: Annotated[str, typer.Option(help="openvino or ort.")] = "openvino",
    size: Annotated[str, typer.Option(help="Size of the slices.")] = "512x512",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, whatever was measured before.")] = False,
    json_out: JsonOption = None,
) -> None:
    """Time INT8 students of every form, untrained, on this machine; name the largest of the presets' form that fits."""
    from sccg_compress.planning import MARGIN, choose

    timed = _timing(budget_ms, target, parse_size(size), fresh=fresh)
    chosen = choose(timed.candidates, budget_ms)
    fits = {"budget_ms": budget_ms, "margin": MARGIN, "chosen": None if chosen is None else chosen.name}
    rows = [
        row | {"fits": one.fits(budget_ms)}
        for row, one in zip(timed.to_dict()["candidates"], timed.candidates, strict=True)
    ]
    write_json(json_out, timed.to_dict() | fits | {"candidates": rows})
    if json_out != "-":
        _show(timed, budget_ms)
    _warn(timed)
    if chosen is None:
        raise _nothing_fits(timed, budget_ms)
    if json_out != "-":
        result(f"{_sentence(chosen, budget_ms)}: sccg-compress distill --student {chosen.name} --teacher FILE")


def plan_student(budget_ms: float) -> str:
    """Name of the largest student whose INT8 OpenVINO engine fits the budget at 512x512; says it.

    Raises
    ------
    InputError
        The budget cannot be used.
    RefusedError
        No student fits the budget; the message names the fastest.
    """
    from sccg_compress.planning import choose

    timed = _timing(budget_ms, "openvino", SIZE)
    _warn(timed)
    chosen = choose(timed.candidates, budget_ms)
    if chosen is None:
        raise _nothing_fits(timed, budget_ms)
    say(f"student: {_sentence(chosen, budget_ms)}")
    return chosen.name


def _timing(budget_ms: float, target: str, size: tuple[int, int], *, fresh: bool = False) -> Timing:
    from sccg_compress.planning import Setting, timing

    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise InputError(f"--budget-ms {budget_ms:g}: say a time above zero")
    return timing(Setting.here(target, size), runs.RUNS / runs.CACHE / "plan", say, fresh=fresh)


def _warn(timed: Timing) -> None:
    for one in timed.candidates:
        if one.note is not None:
            say(f"{one.name}: not timed: {one.note}")
    for warning in timed.warnings:
        say(f"warning: {warning}")


def _sentence(chosen: Timed, budget_ms: float) -> str:
    return f"{chosen.name}, {chosen.p50_ms:.2f} ms, is the largest that fits {budget_ms:g} ms"


def _nothing_fits(timed: Timing, budget_ms: float) -> RefusedError:
    from sccg_compress.planning import MARGIN

    open_to_choice = [one for one in timed.candidates if not one.control and one.p50_ms is not None]
    fastest = min(open_to_choice, key=lambda one: one.p50_ms or math.inf)
    return RefusedError(
        f"no student fits {budget_ms:g} ms on this machine with {MARGIN:.0%} to spare: "
        f"the fastest, {fastest.name}, takes {fastest.p50_ms:.2f} ms"
    )


def _show(timed: Timing, budget_ms: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from sccg_compress.planning import MARGIN
    from sccg_teacher_student.networks.spec import PRESETS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("student", no_wrap=True)
    for header in ("GMAC", "p50 ms", "p90 ms"):
        table.add_column(header, justify="right")
    table.add_column("fits")
    for one in sorted(timed.candidates, key=lambda one: (one.control, one.gmac)):
        figures = ["–" if value is None else f"{value:.2f}" for value in (one.p50_ms, one.p90_ms)]
        verdict = "yes" if one.fits(budget_ms) else "no" if one.note is None else "–"
        shown = "control" if one.control else verdict
        table.add_row(one.name, f"{one.gmac:.2f}", *figures, shown)
    setting = timed.setting
    where = f"{setting.cpu or 'CPU'}, {setting.threads} threads; INT8, {setting.target}"
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"{where}; {setting.size[0]}x{setting.size[1]}, one slice at a time.")
    console.print(f"Fits: p50 and {MARGIN:.0%} of it are within {budget_ms:g} ms.")
    console.print("The largest has most GMAC; controls are of other forms: shown, never chosen.")
    console.print("Presets: " + ", ".join(f"{preset} {name}" for preset, name in PRESETS.items()) + ".", soft_wrap=True)
