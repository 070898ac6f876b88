"""README's tables, generated from the committed results (``make figures``), and the check that they are up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress.generated import write_or_check
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_bench.results import Results, Row

_BLOCK = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n)(?P<table>.*?)(<!-- end of figures -->)", re.DOTALL)
_SIZE = (512, 512)
_HEAD = (
    "| model | precision | p50 at 512x512 | x teacher | to teacher | hf_ratio "
    "| PSNR change vs teacher | engine to FP32 |",
    "|---|---|---|---|---|---|---|---|",
)


def filled(text: str, results: Path) -> str:
    """``text`` with every block ``<!-- figures: NAME -->`` filled from ``results/NAME.json``.

    Raises
    ------
    InputError
        A result is missing or cannot be read.
    """
    from sccg_bench.results import read_results

    def table(found: re.Match[str]) -> str:
        path = results / f"{found['name']}.json"
        return f"{found[1]}{render(read_results(path))}{found[4]}"

    return _BLOCK.sub(table, text)


def render(results: Results) -> str:
    """Markdown table of one bench run, with the line that says where it was measured."""
    other = [row.name for row in results.rows if row.latency_ms and row.size != _SIZE]
    if other:
        raise InputError(f"{', '.join(other)}: latency is not of 512x512: bench again without --size")
    lines = [*_HEAD, *(_line(row) for row in results.rows if row.status in ("measured", "cited"))]
    machine, provenance = results.machine, results.provenance
    cpu = f"{machine.get('cpu') or 'CPU not named'}, {_cores(machine)} cores"
    data = "simulated data" if provenance.get("simulated_data") else "real slices"
    patients = len(provenance.get("cases") or [])
    slices = next((row.counts["slices"] for row in results.rows if row.counts), None)
    measured = f"{data}, patients: {patients}, slices: {slices or 0}"
    lines += ["", f"Measured by `sccg-compress bench` on {cpu}; {results.direction}; {measured}."]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    latency = "" if row.latency_ms is None or row.latency_ms.p50 is None else f"{row.latency_ms.p50:.1f} ms"
    if row.status == "cited":
        latency += " (cited, RTX 3080 Ti)"
    times = "" if row.speedup_vs_teacher is None else f"{row.speedup_vs_teacher:.0f}"
    cells = [
        row.name.replace("|", "\\|"),
        row.precision or "",
        latency,
        times,
        _number(row.figure("drift", "to_teacher_psnr_db"), "{:.1f} dB"),
        _number(row.figure("quality", "hf_ratio") if row.detail_against == "teacher" else None, "{:.2f}"),
        _number(row.figure("drift", "delta_psnr_db"), "{:+.2f} dB"),
        _number(row.figure("engine_drift", "engine_to_fp32_psnr_db"), "{:.1f} dB"),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _cores(machine: dict[str, object]) -> object:
    return machine.get("physical_cores") or "?"


def main() -> None:
    """Fill README.md, or with ``--check`` fail where it differs from the results."""
    readme = Path("README.md")
    try:
        wanted = filled(readme.read_text(encoding="utf-8"), Path("results"))
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    write_or_check(readme, wanted, "make figures")


if __name__ == "__main__":
    main()
