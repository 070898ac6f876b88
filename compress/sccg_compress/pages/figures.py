"""Tables of README and docs from the committed results (``make figures``), and the check that they are up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress.pages.ablation import render_ablation, render_teachers
from sccg_compress.pages.generated import figures_of, write_or_check
from sccg_compress.pages.targets import render_targets
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_bench.results import Results, Row

DOCUMENTS = (Path("README.md"), *(Path("docs", name) for name in ("compression.md", "targets.md", "teacher.md")))
_BLOCK = re.compile(
    r"(?P<head><!-- (?P<kind>figures|study|aims|gains|plan|targets|teachers|ablation): (?P<name>[\w/-]+)"
    r"(?: over (?P<against>[\w.-]+))? -->\n)"
    r".*?(?P<end><!-- end of (?P=kind) -->)",
    re.DOTALL,
)
_SIZE = (512, 512)
_HEAD = (
    "| model | precision | p50 at 512x512 | x teacher | to teacher | hf_ratio "
    "| PSNR change vs teacher | engine to FP32 |",
    "|---|---|---|---|---|---|---|---|",
)


def filled(text: str, results: Path) -> str:
    """``text`` with every block ``<!-- KIND: NAME -->`` filled.

    A run of bench, or of study, is ``figures`` (``results/NAME.json``), the merged rows of a study
    ``study: FOLDER/DIRECTION`` (``results/FOLDER/study-DIRECTION.json``), what presets among them miss
    ``aims: FOLDER/DIRECTION`` (what they are for stands behind the first of these), what rows gain
    ``gains: FOLDER/DIRECTION over ROW``, the table of plan ``plan`` and that of targets ``targets``
    (``results/NAME.json``), teachers that bench measured and what each part of their objective does ``teachers`` and
    ``ablation`` (folders).

    Raises
    ------
    InputError
        A result is missing or cannot be read, or a block says ``over ROW`` that is not of gains, or the reverse.
    """
    from sccg_bench.results import read_results

    def rows(name: str) -> Results:
        folder, _, direction = name.rpartition("/")
        return read_results(results / folder / f"study-{direction}.json")

    captions: set[str] = set()
    kinds: dict[str, Callable[[str, str], str]] = {
        "figures": lambda name, _: render(read_results(results / f"{name}.json")),
        "study": lambda name, _: render_study(rows(name)),
        "aims": lambda name, _: render_aims(rows(name), captions),
        "gains": lambda name, row: render_gains(rows(name), row),
        "plan": lambda name, _: render_plan(results / f"{name}.json"),
        "targets": lambda name, _: render_targets(results / f"{name}.json"),
        "teachers": lambda name, _: render_teachers(results / name),
        "ablation": lambda name, _: render_ablation(results / name),
    }

    def table(found: re.Match[str]) -> str:
        if (found["kind"] == "gains") != (found["against"] is not None):
            raise InputError(f"{found['head'].strip()}: only gains are held over a row, and they must be")
        return f"{found['head']}{kinds[found['kind']](found['name'], found['against'] or '')}{found['end']}"

    return _BLOCK.sub(table, text)


def render(results: Results) -> str:
    """Markdown table of a run of bench or study, where it was measured, and what must be known of it."""
    other = [row.name for row in results.rows if row.latency_ms and row.size != _SIZE]
    if other:
        raise InputError(f"{', '.join(other)}: latency is not of 512x512: bench again without --size")
    cited = [row for row in results.rows if row.status == "cited"]
    shown = _unlabelled(results)
    lines = [*_HEAD, *map(_line, [*shown.rows, *cited])]
    verb = "study" if "conditions" in results.provenance else "bench"
    return "\n".join([*lines, "", _told(shown, verb)]) + "\n"


def render_study(results: Results) -> str:
    """Markdown table of a study's engines, and what must be known of them."""
    from sccg_bench.report.markdown import grid
    from sccg_bench.report.study import study_table

    return "\n".join([*grid(study_table(results)), "", _told(results, "study")]) + "\n"


def render_aims(results: Results, captions: set[str]) -> str:
    """Markdown table of what a study's presets miss; what they are for, unless among ``captions``, where it then is."""
    from sccg_bench.report.aims import aims_table
    from sccg_bench.report.markdown import grid
    from sccg_compress.study_command import presets_then

    table = aims_table(results, presets_then(results))
    told = [] if table.caption in captions else ["", table.caption]
    captions.add(table.caption)
    return "\n".join([*grid(table), *told]) + "\n"


def render_gains(results: Results, against: str) -> str:
    """Markdown table of what a study's rows gain over ``against`` (InputError if there is no such row)."""
    from sccg_bench.report.gains import gains_table
    from sccg_bench.report.markdown import grid

    told = _told(replace(results, warnings=()), "study", timed=False)  # warnings are of times
    return "\n".join([*grid(gains_table(results, against)), "", told]) + "\n"


def render_plan(path: Path) -> str:
    """Markdown table of what ``plan --json`` wrote.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    with figures_of(path, "a plan") as values:
        setting = values["setting"]
        lines = ["| student | parameters | GMAC | p50 ms | fits |", "|---|---|---|---|---|"]
        for one in sorted(values["candidates"], key=lambda one: one["p50_ms"] or float("inf")):
            timed = one["p50_ms"] is not None
            verdict = "control" if one["control"] else "–" if not timed else "yes" if one["fits"] else "no"
            p50 = f"{one['p50_ms']:.2f}" if timed else ""
            cells = (one["name"], f"{one['parameters']:,}", f"{one['gmac']:.2f}", p50, verdict)
            lines.append(f"| {' | '.join(cells)} |")
        told = f"{setting['cpu'] or 'CPU not named'}, {setting['threads']} threads; INT8, {setting['target']}"
        told += f"; {values['budget_ms']:g} ms, {values['margin']:.0%} to spare: {values['chosen'] or 'nothing fits'}."
        told += "".join(f" Warning: {text}." for text in values["warnings"])
    return "\n".join([*lines, "", f"Measured by `sccg-compress plan` on {told}"]) + "\n"


def _told(results: Results, verb: str, *, timed: bool = True) -> str:
    """Where it was measured, how often each time where there are ``timed`` rows, and its warnings."""
    from sccg_bench.report.markdown import escape

    machine, provenance = results.machine, results.provenance
    cpu = f"{machine.get('cpu') or 'CPU not named'}, {_cores(machine)} cores"
    simulated = provenance.get("simulated_data")
    data = "slices of unknown origin" if simulated is None else "simulated data" if simulated else "real slices"
    patients = len(provenance.get("cases") or [])
    counted = [row.counts for row in results.rows if row.counts]
    slices, alone = (next((one[name] for one in counted if name in one), 0) for name in ("slices", "no_reference"))
    measured = f"{data}, patients: {patients}, slices: {slices}"
    measured += f", without a real image to compare with: {alone}" if alone else ""
    asked = [row.latency_ms.n for row in results.rows if timed and row.latency_ms and row.latency_ms.n]
    if asked:
        measured += f"; queries per time: {' to '.join(f'{count:,}' for count in sorted({min(asked), max(asked)}))}"
    origin = f"Measured by `sccg-compress {verb}` on {cpu}; {results.direction}; {measured}."
    return " ".join([origin, *(f"Warning: {escape(text)}." for text in results.warnings)])


def _unlabelled(results: Results) -> Results:
    """What was measured; without the names of a study's runs, where that leaves no two rows of one name."""
    rows = [row for row in results.rows if row.status == "measured"]
    runs = results.provenance.get("runs") or ()
    short = [
        next((row.name.removesuffix(f", {run}") for run in runs if row.name.endswith(f", {run}")), row.name)
        for row in rows
    ]
    if len(set(short)) < len(short):
        return replace(results, rows=tuple(rows))
    warnings = results.warnings
    for run in runs:
        warnings = tuple(text.replace(f" ({results.direction}-{run})", "") for text in warnings)
    named = tuple(replace(row, name=name) for row, name in zip(rows, short, strict=True))
    return replace(results, rows=named, warnings=warnings)


def _line(row: Row) -> str:
    latency = "" if row.latency_ms is None or row.latency_ms.p50 is None else f"{row.latency_ms.p50:.1f} ms"
    if row.status == "cited":
        latency += " (cited, RTX 3080 Ti)"
    faster = row.speedup_vs_teacher
    times = "" if faster is None else f"{faster:.0f}" if faster >= 10 else f"{faster:.1f}"
    cells = [
        row.name.replace("|", "\\|"),
        row.precision or "",
        latency,
        times,
        _decibels(row, "drift", "to_teacher_psnr_db"),
        _number(row.figure("quality", "hf_ratio") if row.detail_against == "teacher" else None, "{:.2f}"),
        _number(row.figure("drift", "delta_psnr_db"), "{:+z.2f} dB"),
        _decibels(row, "engine_drift", "engine_to_fp32_psnr_db"),
    ]
    return f"| {' | '.join(cells)} |"


def _decibels(row: Row, group: str, name: str) -> str:
    from sccg_bench.report.cells import mean_figure

    return "" if row.figure(group, name) is None else f"{mean_figure(row, group, name, 1)} dB"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _cores(machine: dict[str, object]) -> object:
    return machine.get("physical_cores") or "?"


def main() -> None:
    """Fill README and docs, or with ``--check`` fail where they differ from the results."""
    for document in DOCUMENTS:
        try:
            wanted = filled(document.read_text(encoding="utf-8"), Path("results"))
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")
        write_or_check(document, wanted, "make figures")


if __name__ == "__main__":
    main()
