"""``sccg-compress export``: from a run or checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sccg_compress.console import result, say, write_json
from sccg_compress.models import find_model, is_own
from sccg_compress.sources import choose_data, choose_direction, other_intensities, other_teacher, record_of
from sccg_runtime.contract import Precision
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import write_bytes

if TYPE_CHECKING:
    from sccg_export.gate import DriftBudget
    from sccg_export.request import ExportRequest, ExportResult
    from sccg_teacher_student.checkpoint import Checkpoint
    from sccg_teacher_student.data.source import DataSource
    from sccg_teacher_student.record import TrainingRecord

HELD_OUT: Mapping[bool | None, str] = {True: "held-out", False: "training", None: "validation"}
"""What the slices that drift is measured on are called; without a record nobody knows what the network learned from."""


def export_model(
    model: Path | None,
    *,
    target: str,
    precision: Precision,
    gpu_arch: str | None = None,
    quantizer: str | None = None,
    data: Path | None = None,
    intensity: Path | None = None,
    direction: str | None = None,
    teacher: Path | None = None,
    size: tuple[int, int] | None = None,
    out: Path | None = None,
    seed: int = 0,
    budget: DriftBudget,
    json_out: str | None = None,
    saturation_safe: bool = False,
    old_cpu_check: bool = True,
    model_repository: Path | None = None,
) -> Path:
    """Export and print what it did to the picture; gives the bundle's path."""
    from sccg_export.export import export
    from sccg_export.model_repository import add_to_repository, check_repository
    from sccg_export.request import DriftRefusedError
    from sccg_export.targets import load_target, parse_quantizer
    from sccg_export.workshop import run_network
    from sccg_teacher_student.checkpoint import load_checkpoint

    chosen_quantizer = None if quantizer is None else parse_quantizer(quantizer)
    load_target(target, precision, gpu_arch, chosen_quantizer)  # before anything that takes time
    if model_repository is not None:
        check_repository(model_repository, target)
    found = find_model(model)
    if found.checkpoint is None or (model is not None and model.suffix == ".sccg"):
        raise InputError(f"{model} is a bundle already; export takes a run folder or a checkpoint")
    checkpoint = load_checkpoint(found.checkpoint)
    for note in checkpoint.notes:
        say(f"{found.checkpoint.name}: {note}")
    chosen = choose_direction(direction, checkpoint)
    source = choose_data(data, checkpoint.record, intensity)
    request = request_of(
        checkpoint,
        chosen,
        source,
        target=target,
        precision=precision,
        size=size,
        seed=seed,
        budget=budget,
        saturation_safe=saturation_safe,
        old_cpu_check=old_cpu_check,
        gpu_arch=gpu_arch,
        quantizer=chosen_quantizer,
    )
    if checkpoint.record is not None:
        say(*other_intensities(found.checkpoint.name, request.record, source))
    teacher_path = teacher or found.run_teacher()
    if teacher_path is not None and teacher_path != found.checkpoint:
        loaded = load_checkpoint(teacher_path)
        if loaded.direction not in (None, chosen):
            raise InputError(
                f"--teacher {teacher_path.name} is {loaded.direction}, {found.checkpoint.name} is {chosen}"
            )
        say(*other_teacher(found.checkpoint.name, request.record, loaded))
        images = [pair.given(chosen) for pair in request.pairs]
        request = replace(request, teacher_outputs=run_network(loaded, images), teacher_sha256=loaded.sha256)
    path = out or (found.run or found.checkpoint.parent) / _name(found.run, found.checkpoint, request)
    try:
        made = export(request, path, say)
    except DriftRefusedError as error:
        picture = path.with_name(f"{path.stem}-refused.png")
        write_bytes(picture, _worst_picture(error.result, request))
        raise type(error)(f"{error}; see {picture}; nothing was written to {path}", error.result) from None
    try:
        served = None if model_repository is None else add_to_repository(model_repository, made.bundle)
    except (InputError, RefusedError) as error:
        raise type(error)(f"{error}; the bundle is at {path}") from None
    _print(path, made, served, json_out)
    return path


def request_of(
    checkpoint: Checkpoint,
    direction: Direction,
    source: DataSource,
    *,
    target: str,
    precision: Precision,
    size: tuple[int, int] | None,
    seed: int,
    **more: Any,
) -> ExportRequest:
    """What to export: drift on the held-out slices of ``source``, INT8 ranges from its training slices.

    Parameters
    ----------
    size
        (rows, columns) of the engine; None: the trained size.
    seed
        Of the calibration slices.
    more
        Further fields of the request.
    """
    from sccg_export.calibration import choose_calibration
    from sccg_export.request import ExportRequest

    record = record_of(checkpoint, direction, source)
    train, val = _cases(record, source)
    if not val:
        say("no held-out case: drift is measured on training slices")
    if precision == "int8" and not train:
        name = source.path.resolve().name
        raise InputError(f"{name} has held-out cases only: INT8 needs those learned from, to calibrate on")
    return ExportRequest(
        checkpoint=checkpoint,
        record=record,
        target=target,
        precision=precision,
        size=size or record.trained_size,
        calibration=choose_calibration(source, train, direction, seed=seed) if precision == "int8" else None,
        pairs=list(source.pairs(val or train)),
        held_out=None if val and checkpoint.record is None else bool(val),
        measured_on=source.path.resolve().name,
        measured_on_simulated=source.simulated,
        **more,
    )


def _name(run: Path | None, checkpoint: Path, request: ExportRequest) -> str:
    """What a bundle is called: each choice that makes another engine stands in its name, so that none replaces another.

    Checkpoints that are not the run's own bring their file's name instead of the student's.
    """
    own = run is not None and is_own(run, checkpoint)
    parts = [
        request.checkpoint.spec.name if own else checkpoint.stem,
        request.target,
        request.precision,
        None if request.size == request.record.trained_size else f"{request.size[0]}x{request.size[1]}",
        None if request.gpu_arch is None else f"sm{request.gpu_arch.replace('.', '')}",
        request.quantizer,
        "7bit" if request.saturation_safe else None,
        f"seed{request.calibration.seed}" if request.calibration is not None and request.calibration.seed else None,
    ]
    return f"{'-'.join(part for part in parts if part is not None)}.sccg"


def _cases(record: TrainingRecord, source: DataSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training, held-out) cases: as the network learned, else by the data's splits.

    The latter where the data lacks some of those, or keeps one for tests: another patient may be called alike. What
    was held out stays so. A network that learned from all cases that there were is measured on those that came since.
    """
    from sccg_teacher_student.data.splits import training_cases

    kept = {case for name in ("test", "val") for case in source.splits.get(name, ())}
    if {*record.train_cases, *record.val_cases} <= set(source.cases) and kept.isdisjoint(record.train_cases):
        since = (case for case in source.cases if case not in (*record.train_cases, *source.splits.get("test", ())))
        return record.train_cases, record.val_cases or tuple(since)
    train, val = training_cases(source, seed=0)
    held_out = (case for case in (*val, *train) if case in val or case in record.val_cases)
    return (
        tuple(case for case in train if case not in record.val_cases),
        tuple(case for case in held_out if case not in record.train_cases),
    )


def _print(path: Path, made: ExportResult, served: Path | None, json_out: str | None) -> None:
    from sccg_export.gate import worst_slice

    contract, summary = made.bundle.contract, made.quality.summary
    worst, worst_db = worst_slice(made.quality)
    figures = {**summary.engine_drift, **summary.drift}
    values = {
        "bundle": str(path),
        "sha256": made.bundle.sha256,
        "size_mib": path.stat().st_size / 2**20,
        "build_seconds": made.build_seconds,
        "target": contract.target,
        "precision_asked": contract.precision_asked,
        "precision_ran": contract.precision_ran,
        "quantizer": contract.drift.get("quantizer"),
        "float_layers": contract.drift.get("float_layers"),
        "drift_measured_on": contract.drift_measured_on,
        "slices": len(made.outputs),
        "held_out": contract.drift["held_out"],
        "figures": figures,
        "worst_slice": {"slice": worst, "engine_to_fp32_psnr_db": worst_db},
        "teacher": contract.drift["teacher"],
        "put_back": contract.drift.get("put_back"),
        "simulated_isa": contract.drift.get("simulated_isa"),
        "seven_bit_weights": contract.drift.get("seven_bit_weights"),
        "model_repository": None if served is None else str(served),
    }
    write_json(json_out, values)
    if json_out == "-":
        return
    ran = ", ".join(f"{count} {name}" for name, count in (contract.precision_ran or {}).items())
    result(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {contract.engine} {contract.engine_version}, {ran}")
    shown = ("engine_to_fp32_psnr_db", "engine_delta_psnr_db", "engine_delta_ssim", "to_teacher_psnr_db")
    told = [f"{name} {value:.3f}" for name in shown if (value := figures.get(name)) is not None]
    where = "" if contract.drift_measured_on == "engine" else " (measured on the graph, not the engine)"
    result(f"on {len(made.outputs)} {HELD_OUT[contract.drift['held_out']]} slices{where}: {', '.join(told)}")
    for line in drift_lines(contract.drift):
        result(line)
    if served is not None:
        result(f"{served}: for Triton and OpenVINO Model Server; its README.md says what clients must do")


def drift_lines(drift: Mapping[str, Any]) -> list[str]:
    """The rest of a contract's drift in words: teacher, layers that went back to float, quantiser, simulated ISA."""
    lines = []
    teacher = drift["teacher"]
    if teacher["measured"]:
        engine, fp32 = teacher["engine_psnr_db"], teacher["fp32_psnr_db"]
        lines.append(f"to the teacher: engine {engine:.2f} dB, its FP32 network {fp32:.2f} dB")
    else:
        lines.append(f"to the teacher: not measured: {teacher['reason']}")
    if (put_back := drift.get("put_back")) is not None:
        gains = ", ".join(f"{one['layer']} ({one['gain_db']:+.2f} dB)" for one in put_back["layers"])
        told = "what that costs in time was not measured: the engine does not run here"
        if (cost := put_back["cost"]) is not None:
            size = "x".join(map(str, cost["size"]))
            told = f"p50 {cost['with_p50_ms']:.2f} instead of {cost['without_p50_ms']:.2f} ms at {size}"
        lines.append(f"back in float, most harmful first: {gains}; {told}")
    if (quantizer := drift.get("quantizer")) is not None:
        lines.append(f"int8 by {quantizer}")
    if drift.get("seven_bit_weights"):
        lines.append("weights of seven bits in all int8 layers")
    if (isa := drift.get("simulated_isa")) is not None and isa["measured"]:
        figure = isa["engine_drift"]["engine_to_fp32_psnr_db"]
        lines.append(f"simulated ISA {isa['isa']}: engine_to_fp32_psnr_db {figure:.3f}, p50 {isa['p50_ms']:.2f} ms")
    elif isa is not None:
        lines.append(f"simulated ISA {isa['isa']}: not measured: {isa['reason']}")
    return lines


def _worst_picture(made: ExportResult, request: ExportRequest) -> bytes:
    from sccg_bench.report.sheets import strip_png
    from sccg_export.gate import worst_slice

    where, _ = worst_slice(made.quality)
    index = next(i for i, pair in enumerate(request.pairs) if pair.label == where)
    output, fp32 = made.outputs[index], made.fp32_outputs[index]
    panels = [(where, request.pairs[index].given(request.record.direction)), ("FP32 network", fp32), ("engine", output)]
    return strip_png(panels, output, fp32, "FP32 network")
