"""Export from end to end: graph, engine, bundle, measured drift, gate. Nothing counts before it was read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sccg_bench.worker import WorkerError
from sccg_export.built import Built
from sccg_export.bundle_writer import GOLDEN_SLICES, pack, pack_golden
from sccg_export.contract_writer import contract_of, drift_figures
from sccg_export.fallback import fall_back, nothing_against, put_back_figures
from sccg_export.graph import Graph, export_graph
from sccg_export.old_cpu import ISA, OldCpu, not_measured, run_as_old_cpu, why_not
from sccg_export.request import DriftRefusedError, ExportRequest, ExportResult, check_request
from sccg_export.targets import load_target
from sccg_export.workshop import Engine, Workshop, run_network
from sccg_runtime.bundle import DRIFT_MEMBER, GOLDEN_MEMBER, read_bundle
from sccg_runtime.contract import Contract
from sccg_runtime.errors import RefusedError
from sccg_runtime.files import replacing, sha256, write_bytes
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data.phantom import phantom_pairs

BRAIN_WINDOW_HU = (0.0, 80.0)


@dataclass(frozen=True, slots=True)
class _Golden:
    """Phantom slices with the FP32 network's answers, each array (K, 1, H, W) float32 at the engine's size."""

    inputs: FloatArray
    fp32_outputs: FloatArray


@dataclass(frozen=True, slots=True)
class Common:
    """What all engines of one network, size and held-out slices are made from and compared with.

    Attributes
    ----------
    graph
        Of the network.
    fp32_outputs
        What it makes of the held-out slices in PyTorch, (1, H, W) each.
    golden
        The same of the slices that every bundle carries.
    """

    graph: Graph
    fp32_outputs: list[FloatArray]
    golden: _Golden


def export(
    request: ExportRequest, out: Path, say: Callable[[str], None] = lambda line: None, *, common: Common | None = None
) -> ExportResult:
    """Write the bundle ``out``, whole or not at all; an earlier one stays if anything fails.

    Layers of an INT8 engine over its budget go back to float, most harmful first (:mod:`sccg_export.fallback`); only
    if that does not help either, export is refused. With ``request.old_cpu_check``, it has to keep its budget with AVX2
    kernels, too (:mod:`sccg_export.old_cpu`).

    Parameters
    ----------
    request, out
        What to make, and where.
    say
        Told every step.
    common
        From :func:`prepare`, where several engines are made of one network; None: made here.

    Raises
    ------
    DriftRefusedError
        The engine changed the picture more than its budget.
    RefusedError
        The graph differs from PyTorch, nothing runs in the precision that was asked for, or the bundle fails its own
        self-test.
    InputError
        Target, precision, size or slices do not fit.
    """
    check_request(request)
    load_target(request.target, request.precision, request.gpu_arch, request.quantizer)
    if common is None:
        say(f"graph: {request.checkpoint.spec.name}")
        common = prepare(request)
    workshop = Workshop(request, common.graph, common.fp32_outputs)
    with replacing(out) as temporary:
        made = _make(workshop, common.golden, temporary, say)
        _check_ran(made.bundle.contract)
        if made.bundle.contract.runs_on_cpu and not (tested := made.bundle.selftest()).passed:
            raise RefusedError(f"the bundle fails its own self-test ({tested.to_engine_db:.1f} dB; {tested.limits})")
        for suffix, data in made.beside.items():
            write_bytes(out.with_suffix(suffix), data)
            say(f"beside it: {out.with_suffix(suffix).name}")
    return made


def prepare(request: ExportRequest) -> Common:
    """Graph and FP32 outputs of a request; they serve every target, INT8 or every float precision.

    Raises
    ------
    RefusedError
        The graph differs from PyTorch.
    """
    graph = graph_of(request)
    images = [pair.given(request.record.direction) for pair in request.pairs]
    inputs = _golden_inputs(request)
    golden = _Golden(np.stack(inputs), np.stack(run_network(request.checkpoint, inputs)))
    return Common(graph, run_network(request.checkpoint, images), golden)


def graph_of(request: ExportRequest) -> Graph:
    """The graph that a request's engine is made from; INT8's is equalised on the calibration slices.

    Raises
    ------
    RefusedError
        The graph differs from PyTorch.
    """
    calibration = request.calibration if request.precision == "int8" else None
    slices = () if calibration is None else calibration.images
    return export_graph(request.checkpoint.generator, request.record.trained_size, slices)


def _check_ran(contract: Contract) -> None:
    """RefusedError where nothing runs as asked; OpenVINO computes with FP16 weights in float32."""
    asked = contract.precision_asked
    computed = "fp32" if (contract.target, asked) == ("openvino", "fp16") else asked
    if not (contract.precision_ran or {}).get(computed):
        raise RefusedError(f"{asked} was asked for, but no convolution runs in {computed}")


class _OldCpuCheck:
    """Says what is against an engine on CPUs without VNNI, and keeps the last answer; the bundle is written for it."""

    def __init__(self, workshop: Workshop, golden: _Golden, path: Path, say: Callable[[str], None]) -> None:
        self._workshop, self._golden, self._path, self._say = workshop, golden, path, say
        self._last: tuple[Built, OldCpu] | None = None

    def __call__(self, engine: Engine) -> str | None:
        _write(self._workshop, engine, self._golden, self._path, {})
        self._say(f"simulated ISA {ISA}: the same bundle in a child process")
        try:
            answer = run_as_old_cpu(self._path, self._workshop)
        except WorkerError as error:
            raise RefusedError(f"simulated ISA {ISA}: the engine fails: {error}; see --no-old-cpu-check") from None
        self._last = engine.built, answer
        return None if answer.refused is None else f"simulated ISA {ISA}: {answer.refused}"

    def of(self, engine: Engine) -> OldCpu | None:
        """What was found of an engine, if it is the last that was asked about."""
        return self._last[1] if self._last is not None and self._last[0] is engine.built else None


def _make(workshop: Workshop, golden: _Golden, path: Path, say: Callable[[str], None]) -> ExportResult:
    """Build an engine that keeps its budget here and on old CPUs, and write it to ``path``."""
    request = workshop.request
    say(f"engine: {request.target} {request.precision}; drift on {len(request.pairs)} slices")
    engine = workshop.engine()
    if engine.built.note:
        say(engine.built.note)
    if request.precision != "int8":
        _refuse(workshop, engine, None)
        return _write(workshop, engine, golden, path, {})
    extra: dict[str, Any] = {"seven_bit_weights": request.saturation_safe, "equalised": workshop.graph.equalised}
    if engine.refused is not None and "bf16" in engine.session.description.precision_ran:
        say(f"not yet: {engine.refused}: trying float32 instead of bf16 beside int8")
        engine = workshop.in_float32(engine)
    reason = why_not(request.target) if request.old_cpu_check else "this check was left out"
    check = _OldCpuCheck(workshop, golden, path, say)
    also = check if reason is None else nothing_against
    if engine.refused is None:
        engine = replace(engine, refused=also(engine))
    if engine.refused is not None and engine.built.int8_layers:
        before = engine
        fallback = fall_back(workshop, before, say, also=also)
        engine = fallback.engine
        if engine.refused is None:
            extra["put_back"] = put_back_figures(fallback, before, golden.inputs[0])
    old = check.of(engine)
    _refuse(workshop, engine, old)
    if old is None:
        say(f"simulated ISA {ISA}: not measured: {reason}")
    extra["simulated_isa"] = not_measured(reason or "") if old is None else old.to_dict()
    return _write(workshop, engine, golden, path, extra)


def _refuse(workshop: Workshop, engine: Engine, old: OldCpu | None) -> None:
    """DriftRefusedError where something is against an engine, with the pictures that show it."""
    if engine.refused is None:
        return
    if old is None:
        shown = ExportResult(engine.bundle, engine.quality, engine.outputs, workshop.fp32_outputs)
        raise DriftRefusedError(engine.refused, shown)
    shown = ExportResult(engine.bundle, old.quality, old.outputs, workshop.fp32_outputs)
    raise DriftRefusedError(f"{engine.refused}; --no-old-cpu-check exports for newer CPUs only", shown)


def _write(workshop: Workshop, engine: Engine, golden: _Golden, path: Path, extra: Mapping[str, Any]) -> ExportResult:
    """Pack, write, and read back through the reader that clinics use."""
    request, built = workshop.request, engine.built
    drift = {**drift_figures(request, built, engine.quality, workshop.fp32_to_teacher_db), **extra}
    detail = drift | {"per_slice": [scores.to_dict() for scores in engine.quality.slices]}
    answers = np.stack([engine.session(image) for image in golden.inputs])
    members = {
        **built.members,
        GOLDEN_MEMBER: pack_golden(golden.inputs, golden.fp32_outputs, answers),
        DRIFT_MEMBER: json.dumps(detail, indent=1, allow_nan=False).encode(),
    }
    ran = engine.session.description.precision_ran if built.precision_ran is None else built.precision_ran
    contract = contract_of(request, workshop.graph, built, ran, drift)
    path.write_bytes(pack(replace(contract, members={name: sha256(data) for name, data in members.items()}), members))
    return ExportResult(
        read_bundle(path),
        engine.quality,
        engine.outputs,
        workshop.fp32_outputs,
        built.beside,
        engine.build_seconds,
    )


def _golden_inputs(request: ExportRequest) -> list[FloatArray]:
    """Phantom slices in the network's intensity: a bundle that travels holds no patient's pixels."""
    rows, columns = request.size
    record = request.record
    low, high = record.ct.window_hu or BRAIN_WINDOW_HU
    longer = max(rows, columns)
    side_px = longer + -longer % 16
    pairs = phantom_pairs(1, slices=2 * GOLDEN_SLICES + 1, size=side_px, low_hu=low, high_hu=high)
    images = [pair.given(record.direction) for pair in list(pairs)[1::2]]
    top, left = (side_px - rows) // 2, (side_px - columns) // 2
    return [np.ascontiguousarray(image[:, top : top + rows, left : left + columns]) for image in images]
