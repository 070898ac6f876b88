"""Every target and precision for some models: build time, size, p50, drift and what stayed in float, as one table.

``python -m sccg_compress.target_figures MODEL... --data DIR`` exports and times; ``--table`` writes the table again.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sccg_compress.generated import with_block
from sccg_runtime.errors import InputError, SccgError
from sccg_runtime.files import write_text

RESULTS = Path("results/targets.json")
DOCS = Path("docs/targets.md")
SIZE = (512, 512)
_HEAD = (
    "| model | target | precision | build | bundle | p50 at 512x512 | engine to FP32: mean, worst | float layers |",
    "|---|---|---|---|---|---|---|---|",
)


def main(
    models: Annotated[list[Path] | None, typer.Argument(help="Run folders and checkpoints.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of pairs.")] = None,
    results: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS,
    docs: Annotated[Path, typer.Option(help="Text with the table's place in it.")] = DOCS,
    table: Annotated[bool, typer.Option("--table", help="Only write the table again.")] = False,
) -> None:
    """Export each model to all that can be built here, time what runs on the CPU in turns, and fill the table."""
    if not table:
        if not models or data is None:
            raise InputError("say MODEL... and --data DIR, or --table")
        write_text(results, json.dumps(measured(models, data), indent=2, allow_nan=False) + "\n")
    write_text(docs, filled(docs.read_text(encoding="utf-8"), results))


def measured(models: Sequence[Path], data: Path) -> dict[str, Any]:
    """One row per model, target and precision; where export refuses, its reason stands in ``refused``."""
    from sccg_bench.machine import LoadWatch, describe_machine
    from sccg_bench.measuring import BenchOptions, Measuring
    from sccg_export.requirements import REQUIREMENTS, why_not
    from sccg_export.runnables import BundleRunnable
    from sccg_runtime.engine import physical_cores

    options = BenchOptions(direction="mr2ct", size=SIZE, threads=physical_cores())
    run = Measuring(options, lambda line: typer.echo(line, err=True))
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, model in enumerate(models):
            for target, needed in REQUIREMENTS.items():
                for precision in needed.precisions:
                    row: dict[str, Any] = {
                        "target": target,
                        "precision": precision,
                        "refused": why_not(target, precision),
                    }
                    rows.append(row)
                    bundle = folder / f"{number}-{target}-{precision}.sccg"
                    if row["refused"] is None:
                        row |= _exported(model, data, bundle, target, precision)
                    row["model"] = row.get("student") or model.stem
                    if row["refused"] is None and not needed.driver:
                        run.start(stack, BundleRunnable(bundle.stem, bundle))
        watch = LoadWatch(lambda: [worker.pid for worker in run.workers.values()])
        run.measure(SIZE, native=False)
        warning = watch.warning()
    for row in rows:
        timed = run.rows.get(str(row.pop("bundle", "")))
        row["p50_ms"] = None if timed is None or timed.latency_ms is None else timed.latency_ms.p50
    return {"schema": "sccg-targets/1", "machine": asdict(describe_machine()), "warning": warning, "rows": rows}


def _exported(model: Path, data: Path, bundle: Path, target: str, precision: Any) -> dict[str, Any]:
    """What export measured of one engine, and ``bundle``, the name that it is timed under."""
    from sccg_compress.export_command import export_model
    from sccg_export.gate import DriftBudget
    from sccg_runtime.bundle import read_bundle

    told = bundle.with_suffix(".json")
    try:
        export_model(
            model,
            target=target,
            precision=precision,
            data=data,
            intensity=None,
            direction=None,
            teacher=None,
            size=SIZE,
            out=bundle,
            seed=0,
            budget=DriftBudget(),
            json_out=str(told),
            old_cpu_check=False,
        )
    except SccgError as error:
        return {"refused": str(error)}
    values = json.loads(told.read_text(encoding="utf-8"))
    return {
        "student": read_bundle(bundle).contract.student,
        "bundle": bundle.stem,
        "build_seconds": values["build_seconds"],
        "size_mib": values["size_mib"],
        "engine_to_fp32_psnr_db": values["figures"]["engine_to_fp32_psnr_db"],
        "worst_psnr_db": values["worst_slice"]["engine_to_fp32_psnr_db"],
        "drift_measured_on": values["drift_measured_on"],
        "float_layers": values["float_layers"],
    }


def filled(text: str, results: Path) -> str:
    """``text`` with the block ``<!-- targets -->`` made from the results, if they are there."""
    lines = ["Not measured yet."]
    if results.is_file():
        values = json.loads(results.read_text(encoding="utf-8"))
        machine = values["machine"]
        lines = [*_HEAD, *(_line(row) for row in values["rows"]), ""]
        lines += [f"Measured on {machine['cpu'] or 'a CPU not named'}, {machine['physical_cores']} cores."]
        lines += [values["warning"]] if values["warning"] else []
    return with_block(text, "targets", lines)


def _line(row: Mapping[str, Any]) -> str:
    named = f"| {row['model']} | {row['target']} | {row['precision']} |"
    if row["refused"] is not None:
        return f"{named} not exported: {row['refused']} | | | | |"
    p50 = "" if row["p50_ms"] is None else f"{row['p50_ms']:.1f} ms"
    drift = f"{row['engine_to_fp32_psnr_db']:.1f}, {row['worst_psnr_db']:.1f} dB ({row['drift_measured_on']})"
    left = "" if row["float_layers"] is None else str(len(row["float_layers"]))
    return f"{named} {row['build_seconds']:.1f} s | {row['size_mib']:.1f} MiB | {p50} | {drift} | {left} |"


if __name__ == "__main__":
    try:
        typer.run(main)
    except SccgError as error:
        sys.exit(f"error: {error}")
