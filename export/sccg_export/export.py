"""Export from end to end: graph, engine, bundle, measured drift, gate. Nothing counts before it was read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sccg_bench.protocols import Pair
from sccg_bench.quality import QualityResult, quality
from sccg_export.built import Built
from sccg_export.bundle_writer import pack, pack_golden
from sccg_export.calibration import Calibration
from sccg_export.gate import DriftBudget, check_drift
from sccg_export.graph import Graph, export_graph
from sccg_export.targets import load_target
from sccg_runtime.bundle import DRIFT_MEMBER, GOLDEN_MEMBER, Bundle, read_bundle
from sccg_runtime.contract import FORMAT_VERSION, Contract, Precision, parse_target
from sccg_runtime.engine import Session, open_session
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import replacing, sha256
from sccg_runtime.intensity import FloatArray, Intensity
from sccg_runtime.selftest import selftest
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.data.phantom import phantom_pairs
from sccg_teacher_student.distill import side
from sccg_teacher_student.record import TrainingRecord

GOLDEN_SLICES = 2
BRAIN_WINDOW_HU = (0.0, 80.0)
_ADVICE = {"bf16": "; bf16 keeps only 8 significant bits: ask for --fp16, --fp32 or --int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to make.

    Attributes
    ----------
    checkpoint, record
        The network, and what it learned from.
    target, precision
        Names of :data:`sccg_export.targets.TARGETS`, and a precision that it has.
    size
        (rows, columns) that the engine is compiled for.
    calibration
        Needed for ``int8``.
    pairs
        Held-out slices that drift is measured on.
    measured_on, measured_on_simulated
        Name of the data set that they come from (no path: the bundle travels), and whether it is the phantom.
    teacher_outputs
        What the teacher made of them, or None where no teacher is at hand.
    budget
        Of the gate.
    gpu_arch
        Compute capability to build for, such as ``"8.9"``; None for the target's default.
    """

    checkpoint: Checkpoint
    record: TrainingRecord
    target: str
    precision: Precision
    size: tuple[int, int]
    calibration: Calibration | None
    pairs: Sequence[Pair]
    measured_on: str
    measured_on_simulated: bool
    teacher_outputs: Sequence[FloatArray] | None = None
    budget: DriftBudget = field(default_factory=DriftBudget)
    gpu_arch: str | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was made.

    Attributes
    ----------
    bundle
        As read back from the file.
    quality
        Figures on the held-out slices.
    outputs, fp32_outputs
        Of the engine and of its FP32 network, one (1, H, W) per pair.
    """

    bundle: Bundle
    quality: QualityResult
    outputs: list[FloatArray]
    fp32_outputs: list[FloatArray]


class DriftRefusedError(RefusedError):
    """The gate said no; carries what it saw, so that the worst slice can be shown."""

    def __init__(self, message: str, result: ExportResult) -> None:
        super().__init__(message)
        self.result = result


def export(request: ExportRequest, out: Path, say: Callable[[str], None] = lambda line: None) -> ExportResult:
    """Write the bundle ``out``, whole or not at all; an earlier one stays if anything fails.

    An INT8 engine over its budget is built once more with its last two convolutions in float32, which take the noise
    out of the picture for about 2 ms more; only if that fails too, export is refused.

    Raises
    ------
    DriftRefusedError
        The engine changed the picture more than its budget.
    RefusedError
        The graph differs from PyTorch, or the bundle fails its own self-test.
    InputError
        Target, precision, size or slices do not fit.
    """
    _check_sizes(request)
    load_target(request.target, request.precision, request.gpu_arch)
    say(f"graph: {request.checkpoint.spec.name}")
    graph = export_graph(request.checkpoint.generator, request.record.trained_size)
    try:
        return _attempt(request, graph, out, say, float_output=False)
    except DriftRefusedError as error:
        if request.precision != "int8":
            raise
        say(f"{error}: the last two convolutions go back to float32")
    return _attempt(request, graph, out, say, float_output=True)


def _attempt(
    request: ExportRequest, graph: Graph, out: Path, say: Callable[[str], None], *, float_output: bool
) -> ExportResult:
    """Build, write, read back, run and judge one engine."""
    target = load_target(request.target, request.precision)
    say(f"engine: {request.target} {request.precision}")
    options = {} if request.gpu_arch is None else {"gpu_arch": request.gpu_arch}
    built = target.build(
        graph, request.precision, request.size, request.calibration, float_output=float_output, **options
    )
    if built.note:
        say(built.note)
    opened = built.open or (lambda bundle, size: open_session(bundle, size=size))
    inputs = _golden_inputs(request)
    fp32_golden = np.stack(run_network(request.checkpoint, inputs))

    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        draft = _contract(request, graph, built, {}, {"measured": False})
        golden = pack_golden(np.stack(inputs), fp32_golden, fp32_golden)
        bundle = _write(temporary, draft, built, golden, b"{}")
        session = opened(bundle, request.size)
        engine_golden = np.stack([session(image) for image in inputs])

        say(f"drift on {len(request.pairs)} held-out slices")
        fp32_outputs = run_network(request.checkpoint, _inputs(request))
        if not all(np.isfinite(output).all() for output in fp32_outputs):
            raise RefusedError("the FP32 network gives values that are not finite: there is nothing to compare with")
        outputs = _run_engine(bundle, session, _inputs(request), opened)
        ct = request.record.output_intensity if request.record.direction == "mr2ct" else request.record.input_intensity
        result = quality(request.pairs, outputs, request.teacher_outputs, fp32_outputs, request.record.direction, ct)
        drift = _drift(request, result) | ({"build": dict(built.details)} if built.details else {})
        ran = session.describe().precision_ran if built.precision_ran is None else built.precision_ran
        contract = _contract(request, graph, built, ran, drift)
        golden = pack_golden(np.stack(inputs), fp32_golden, engine_golden)
        detail = drift | {"per_slice": [scores.to_dict() for scores in result.slices]}
        bundle = _write(temporary, contract, built, golden, json.dumps(detail, indent=1, allow_nan=False).encode())
        made = ExportResult(bundle, result, outputs, fp32_outputs)
        try:
            check_drift(result, request.budget)
        except RefusedError as error:
            raise DriftRefusedError(f"{error}{_ADVICE.get(request.precision, '')}", made) from None
        if request.precision == "int8" and not ran.get("int8"):
            raise RefusedError("int8 was asked for, but no convolution runs in int8")
        if built.open is None and not (tested := selftest(bundle)).passed:
            raise RefusedError(f"the bundle fails its own self-test ({tested.to_engine_db:.1f} dB; {tested.limits})")
    return made


def run_network(checkpoint: Checkpoint, images: Sequence[FloatArray]) -> list[FloatArray]:
    """Outputs of the FP32 network in PyTorch, one (1, H, W) per image."""
    with torch.inference_mode():
        return [
            np.array(checkpoint.generator(torch.from_numpy(np.array(image))[None])[0].numpy(), np.float32)
            for image in images
        ]


def _check_sizes(request: ExportRequest) -> None:
    stride = request.checkpoint.spec.stride
    sizes = {"size": request.size, "trained size": request.record.trained_size}
    sizes |= {f"slice {pair.case}/{pair.slice}": _size(side(pair, request.record.direction)) for pair in request.pairs}
    for what, size in sizes.items():
        if any(length % stride for length in size):
            raise InputError(f"{what} {size[0]}x{size[1]}: both sides must be multiples of {stride}")
    if not request.pairs:
        raise InputError("export needs held-out slices to measure its drift on")
    if request.calibration is not None:
        calibrated = {_size(image) for image in request.calibration.images}
        if len(calibrated) != 1 or any(length % stride for size in calibrated for length in size):
            listed = ", ".join(f"{rows}x{columns}" for rows, columns in sorted(calibrated)) or "none"
            raise InputError(f"calibration slices must have one size whose sides are multiples of {stride}: {listed}")


def _size(image: FloatArray) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


def _inputs(request: ExportRequest) -> list[FloatArray]:
    return [side(pair, request.record.direction) for pair in request.pairs]


def _run_engine(
    bundle: Bundle,
    session: Session,
    images: Sequence[FloatArray],
    opened: Callable[[Bundle, tuple[int, int]], Session],
) -> list[FloatArray]:
    """Run slices at their own size, opening another session where it is not the engine's."""
    sessions = {session.describe().size: session}
    outputs = []
    for image in images:
        size = _size(image)
        if size not in sessions:
            sessions[size] = opened(bundle, size)
        outputs.append(sessions[size](image))
    return outputs


def _golden_inputs(request: ExportRequest) -> list[FloatArray]:
    """Phantom slices in the network's intensity: a bundle that travels holds no patient's pixels."""
    rows, columns = request.size
    record = request.record
    ct: Intensity = record.input_intensity if record.direction == "ct2mr" else record.output_intensity
    low, high = ct.window_hu or BRAIN_WINDOW_HU
    longer = max(rows, columns)
    side_px = longer + -longer % 16
    pairs = phantom_pairs(1, slices=2 * GOLDEN_SLICES + 1, size=side_px, low_hu=low, high_hu=high)
    images = [side(pair, record.direction) for pair in list(pairs)[1::2]]
    top, left = (side_px - rows) // 2, (side_px - columns) // 2
    return [np.ascontiguousarray(image[:, top : top + rows, left : left + columns]) for image in images]


def _drift(request: ExportRequest, result: QualityResult) -> dict[str, Any]:
    summary = result.summary
    return {
        "measured": True,
        "data": request.measured_on,
        "simulated_data": request.measured_on_simulated,
        "slices": len(request.pairs),
        "engine_drift": summary.engine_drift,
        "drift": summary.drift,
        "quality": summary.quality,
        "per_patient": [patient.to_dict() for patient in summary.patients],
        "budget": asdict(request.budget),
    }


def _contract(
    request: ExportRequest, graph: Graph, built: Built, ran: dict[str, int] | None, drift: dict[str, Any]
) -> Contract:
    record, checkpoint = request.record, request.checkpoint
    unknown = {}
    if record.trained_spacing_mm is None:
        unknown["trained_spacing_mm"] = "the training data does not state its spacing"
    if record.teacher_sha256 is None:
        unknown["teacher_sha256"] = "the network is itself a teacher"
    if request.calibration is None:
        unknown["calibration"] = f"{request.precision} needs none"
    if built.float_layers:
        drift = drift | {"float_layers": list(built.float_layers)}
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
        drift=drift,
        drift_measured_on=built.measured_on,
        simulated_data=record.simulated_data,
        members={},
        created_by=f"sccg-compress {version('sccg-compress')}",
        unknown=unknown,
    )


def _write(path: Path, contract: Contract, built: Built, golden: bytes, drift: bytes) -> Bundle:
    """Pack, write, and read back through the reader that clinics use."""
    members = {**built.members, GOLDEN_MEMBER: golden, DRIFT_MEMBER: drift}
    hashed = replace(contract, members={name: sha256(content) for name, content in members.items()})
    path.write_bytes(pack(hashed, members))
    return read_bundle(path)
