"""The contract of a bundle, and the drift figures that it states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from sccg_bench.quality import QualityResult
from sccg_export.built import Built
from sccg_export.gate import teacher_drop_db
from sccg_export.graph import Graph
from sccg_export.request import ExportRequest
from sccg_runtime.contract import FORMAT_VERSION, Contract, parse_target


def drift_figures(
    request: ExportRequest, built: Built, result: QualityResult, fp32_to_teacher_db: float | None
) -> dict[str, Any]:
    """What export changed, for contract and ``drift.json``: figures on the 0..255 scale, PSNR in dB."""
    summary = result.summary
    drift: dict[str, Any] = {
        "measured": True,
        "data": request.measured_on,
        "simulated_data": request.measured_on_simulated,
        "slices": len(request.pairs),
        "held_out": request.held_out,
        "engine_drift": summary.engine_drift,
        "drift": summary.drift,
        "quality": summary.quality,
        "per_patient": [patient.to_dict() for patient in summary.patients],
        "budget": asdict(request.budget),
        "teacher": {"measured": False, "reason": "no teacher was at hand"},
    }
    if fp32_to_teacher_db is not None:
        drift["teacher"] = {
            "measured": True,
            "sha256": request.teacher_sha256,
            "engine_psnr_db": summary.drift["to_teacher_psnr_db"],
            "fp32_psnr_db": fp32_to_teacher_db,
            "drop_db": teacher_drop_db(result, fp32_to_teacher_db),
        }
    if built.quantizer:
        drift["quantizer"] = built.quantizer
    if built.float_layers:
        drift["float_layers"] = list(built.float_layers)
    if built.details:
        drift["build"] = dict(built.details)
    return drift


def contract_of(
    request: ExportRequest, graph: Graph, built: Built, ran: dict[str, int] | None, drift: Mapping[str, Any]
) -> Contract:
    """Everything but the members' hashes."""
    record, checkpoint = request.record, request.checkpoint
    unknown = {}
    if record.trained_spacing_mm is None:
        unknown["trained_spacing_mm"] = "the training data does not state its spacing"
    if record.teacher_sha256 is None:
        unknown["teacher_sha256"] = "the network is itself a teacher"
    if request.calibration is None:
        unknown["calibration"] = f"{request.precision} needs none"
    return Contract(
        format_version=FORMAT_VERSION,
        direction=record.direction,
        input_intensity=record.input_intensity,
        output_intensity=record.output_intensity,
        trained_size=record.trained_size,
        trained_spacing_mm=record.trained_spacing_mm,
        engine_size=request.size,
        stride=checkpoint.spec.stride,
        target=parse_target(request.target),
        precision_asked=request.precision,
        precision_ran=ran,
        engine=built.engine,
        engine_version=built.engine_version,
        opset=graph.opset,
        student=checkpoint.spec.name,
        generator=checkpoint.spec.to_dict(),
        generator_sha256=checkpoint.sha256,
        teacher_sha256=record.teacher_sha256,
        calibration=None if request.calibration is None else dict(request.calibration.to_dict()),
        input_statistics=record.input_statistics,
        drift=dict(drift),
        drift_measured_on=built.measured_on,
        simulated_data=record.simulated_data,
        members={},
        created_by=f"sccg-compress {version('sccg-compress')}",
        unknown=unknown,
    )
