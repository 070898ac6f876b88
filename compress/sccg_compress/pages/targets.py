"""Every target and precision for some models: build time, size, p50, drift and what stays in float, as one table.

``python -m sccg_compress.pages.targets MODEL... --data DIR`` exports and times.
Engines are taken as they are first built: what export would then do about one over its budget is not part of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sccg_compress.console import say
from sccg_compress.pages.generated import figures_of
from sccg_runtime.errors import InputError, RefusedError, SccgError, one_line
from sccg_runtime.files import write_text

if TYPE_CHECKING:
    from sccg_export.request import ExportRequest, ExportResult

RESULTS = Path("results/targets.json")
SIZE = (512, 512)
_EVERYTHING = {
    "min_mean_psnr_db": 0.0,
    "min_worst_psnr_db": 0.0,
    "min_delta_psnr_db": -100.0,
    "min_delta_ssim": -2.0,
    "max_delta_mae_u8": 255.0,
}
"""A drift budget that no engine exceeds."""
_HEAD = (
    "| model | target | precision | build | bundle | p50 at 512x512 | engine to FP32: mean, worst | float layers |",
    "|---|---|---|---|---|---|---|---|",
)


def main(
    models: Annotated[list[Path], typer.Argument(help="Run folders and checkpoints.")],
    data: Annotated[Path, typer.Option(help="Folder of pairs.")],
    results: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS,
) -> None:
    """Export each model to all that can be built here, and time what runs on the CPU in turns."""
    write_text(results, json.dumps(measured(models, data), indent=2, allow_nan=False) + "\n")


def measured(models: Sequence[Path], data: Path) -> dict[str, Any]:
    """One row per model, target and precision; where there is no engine, the reason stands in ``refused``."""
    from sccg_bench.machine import describe_machine
    from sccg_bench.measuring import BenchOptions, Measuring
    from sccg_bench.run import unsteady
    from sccg_export.runnables import BundleRunnable
    from sccg_runtime.engine import physical_cores

    options = BenchOptions(direction="mr2ct", size=SIZE, threads=physical_cores())
    run = Measuring(options, say)
    rows: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, model in enumerate(models):
            for row, bundle in _exported(model, data, folder / str(number)):
                name = f"{len(rows)}: {row['model']} {row['target']} {row['precision']}"
                rows[name] = row
                if bundle is not None:
                    run.start(stack, BundleRunnable(name, bundle))
        run.measure(SIZE, native=False)
    for name, row in rows.items():
        timed = run.rows.get(name)
        row["p50_ms"] = None if timed is None or timed.latency_ms is None else timed.latency_ms.p50
        row["not_timed"] = None if timed is None else timed.note
    warning = ". ".join(filter(None, (*run.warnings, unsteady(run.rows.values())))) or None
    told = {"machine": asdict(describe_machine()), "warning": warning, "rows": list(rows.values())}
    return {"schema": "sccg-targets/1", "threads": options.threads, **told}


def _exported(model: Path, data: Path, folder: Path) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """(row, bundle that the CPU runs) for every target and precision; whatever fails leaves its reason in the row."""
    from sccg_export.export import export, graph_of, prepare
    from sccg_export.requirements import REQUIREMENTS, why_not

    def reason(error: Exception) -> str:
        return one_line(error).replace(f"{folder}/", "").replace(str(model), model.name)

    name, failed = model.name, None
    try:
        request = _requested(model, data)
        quantised = prepare(request)
        plain = graph_of(replace(request, precision="fp32", calibration=None))
        common = {"int8": quantised, "float": replace(quantised, graph=plain)}
        name = request.checkpoint.spec.name
    except Exception as error:  # whatever it is, the other models' rows are worth keeping
        failed = reason(error)
    for target, needed in REQUIREMENTS.items():
        for precision in needed.precisions:
            refused = failed or why_not(target, precision)
            row: dict[str, Any] = {"model": name, "target": target, "precision": precision, "refused": refused}
            bundle = folder / f"{target}-{precision}.sccg"
            if refused is None:
                say(f"{name}: {target} {precision}")
                calibration = request.calibration if precision == "int8" else None
                wanted = replace(request, target=target, precision=precision, calibration=calibration)
                try:
                    made = export(wanted, bundle, common=common["int8" if precision == "int8" else "float"])
                    row |= _figures(made, bundle)
                except Exception as error:  # as above, for one engine
                    row["refused"] = reason(error)
            timed = row["refused"] is None and made.bundle.contract.runs_on_cpu
            yield row, bundle if timed else None


def _requested(model: Path, data: Path) -> ExportRequest:
    """A model's INT8 engine; the budget lets everything through."""
    from sccg_compress.export_command import request_of
    from sccg_compress.models import find_model
    from sccg_compress.sources import choose_data, choose_direction
    from sccg_export.gate import DriftBudget
    from sccg_teacher_student.checkpoint import load_checkpoint

    found = find_model(model)
    if found.checkpoint is None:
        raise InputError(f"{model} is a bundle already; export takes a run folder or a checkpoint")
    checkpoint = load_checkpoint(found.checkpoint)
    return request_of(
        checkpoint,
        choose_direction(None, checkpoint),
        choose_data(data, checkpoint.record, None),
        target="openvino",
        precision="int8",
        size=SIZE,
        seed=0,
        budget=DriftBudget(**_EVERYTHING),
    )


def _figures(made: ExportResult, bundle: Path) -> dict[str, Any]:
    """What export measured of one engine, and what its gate says with the default budget."""
    from sccg_export.gate import DriftBudget, check_drift, worst_slice

    contract = made.bundle.contract
    over_budget = None
    try:
        check_drift(made.quality, DriftBudget())
    except RefusedError as error:
        over_budget = str(error)
    return {
        "build_seconds": made.build_seconds,
        "size_mib": bundle.stat().st_size / 2**20,
        "precision_ran": contract.precision_ran,
        "engine_to_fp32_psnr_db": made.quality.summary.engine_drift["engine_to_fp32_psnr_db"],
        "worst_psnr_db": worst_slice(made.quality)[1],
        "over_budget": over_budget,
        "drift_measured_on": contract.drift_measured_on,
        "float_layers": contract.drift.get("float_layers"),
        "gpu_arch": contract.drift.get("build", {}).get("gpu_arch"),
    }


def render_targets(path: Path) -> str:
    """Markdown table of what :func:`measured` found.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    with figures_of(path, "figures of targets") as values:
        told = [f"Measured on {values['machine']['cpu'] or 'a CPU not named'}, {values['threads']} threads."]
        lines = [*_HEAD, *(_line(row) for row in values["rows"]), "", *told, values["warning"] or ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _line(row: Mapping[str, Any]) -> str:
    arch = f" (SM {row['gpu_arch']})" if row.get("gpu_arch") else ""
    cells = [row["model"], row["target"] + arch, row["precision"]]
    if row["refused"] is not None:
        cells += [f"not exported: {row['refused']}", "", "", "", ""]
    else:
        p50 = f"not timed: {row['not_timed']}" if row["not_timed"] else ""
        drift = f"{row['engine_to_fp32_psnr_db']:.1f}, {row['worst_psnr_db']:.1f} dB"
        drift += " on the graph" if row["drift_measured_on"] == "graph" else ""
        cells += [
            f"{row['build_seconds']:.1f} s",
            f"{row['size_mib']:.1f} MiB",
            p50 if row["p50_ms"] is None else f"{row['p50_ms']:.1f} ms",
            drift if row["over_budget"] is None else f"{drift}, **over budget**",
            "" if row["float_layers"] is None else str(len(row["float_layers"])),
        ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    try:
        typer.run(main)
    except SccgError as error:
        sys.exit(f"error: {error}")
