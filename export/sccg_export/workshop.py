"""Builds engines of one network, runs them on the held-out slices and judges them; nothing is written to disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sccg_bench.metrics import psnr_db
from sccg_bench.quality import Judge, QualityResult
from sccg_bench.scale import to_u8
from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.contract_writer import contract_of
from sccg_export.gate import check_drift
from sccg_export.graph import Graph, quiet
from sccg_export.request import ExportRequest, size_of
from sccg_export.targets import TargetModule, load_target
from sccg_runtime.bundle import Bundle
from sccg_runtime.engine import Session, open_session
from sccg_runtime.errors import RefusedError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.networks.inference import infer

QUICK_CALIBRATION = 24
"""Slices that set the ranges where an engine is only to be compared with others of its kind."""
Opener = Callable[[Bundle, tuple[int, int]], Session]
_ADVICE = {"bf16": "; bf16 keeps only 8 significant bits: ask for --fp16, --fp32 or --int8"}


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine, built, run on the held-out slices and judged.

    Attributes
    ----------
    built
        Its files.
    bundle
        The same with a draft of the contract, in memory.
    session
        At the engine's size.
    outputs
        (1, H, W) in [-1, 1], one per pair.
    quality
        Their figures.
    refused
        What the gate said, or None if it let the engine through.
    build_seconds
        From the graph to the engine's files.
    """

    built: Built
    bundle: Bundle
    session: Session
    outputs: list[FloatArray]
    quality: QualityResult
    refused: str | None
    build_seconds: float

    @property
    def psnr_db(self) -> float:
        """Mean PSNR in dB to the FP32 network, u8 scale."""
        return self.quality.summary.engine_drift["engine_to_fp32_psnr_db"] or 0.0


class Workshop:
    """Holds what all engines of one export share: graph, held-out slices, what FP32 network and teacher made of them.

    Raises
    ------
    RefusedError
        The FP32 network gives values that are not finite.
    """

    def __init__(self, request: ExportRequest, graph: Graph, fp32_outputs: list[FloatArray] | None = None) -> None:
        self.request, self.graph = request, graph
        self._float32 = False  # beside int8, where the CPU has bf16 and the target would use it
        self.inputs = [pair.given(request.record.direction) for pair in request.pairs]
        self.fp32_outputs = run_network(request.checkpoint, self.inputs) if fp32_outputs is None else fp32_outputs
        if not all(np.isfinite(output).all() for output in self.fp32_outputs):
            raise RefusedError("the FP32 network gives values that are not finite: there is nothing to compare with")
        record = request.record
        self._judge = Judge(request.pairs, record.direction, request.teacher_outputs, record.ct)
        self.fp32_to_teacher_db: float | None = None
        if request.teacher_outputs is not None:
            self.fp32_to_teacher_db = self._judge.judge(self.fp32_outputs).summary.drift["to_teacher_psnr_db"]

    def engine(self, keep_float: tuple[str, ...] = ()) -> Engine:
        """Build an engine, run it on all held-out slices and put it before the gate."""
        started = time.perf_counter()
        built = self._build(self.request.calibration, keep_float)
        return self._judged(built, time.perf_counter() - started)

    def in_float32(self, engine: Engine) -> Engine:
        """The same with float32 instead of bf16 beside int8, if the gate lets that through; else as it is.

        If it does, all that are built from now on are opened so.
        """
        self._float32 = True
        changed = self._judged(engine.built, engine.build_seconds)
        self._float32 = changed.refused is None
        return changed if self._float32 else engine

    def _judged(self, built: Built, seconds: float) -> Engine:
        bundle, opened = self._bundle(built), opener(built)
        session = opened(bundle, self.request.size)
        outputs = _run(bundle, session, self.inputs, opened)
        result, refused = self.judge(outputs)
        return Engine(built, bundle, session, outputs, result, refused, seconds)

    def judge(self, outputs: Sequence[FloatArray]) -> tuple[QualityResult, str | None]:
        """(figures, what the gate said) of outputs, one per held-out slice."""
        result = self._judge.judge(outputs, self.fp32_outputs)
        try:
            check_drift(result, self.request.budget, self.fp32_to_teacher_db)
        except RefusedError as error:
            return result, f"{error}{_ADVICE.get(self.request.precision, '')}"
        return result, None

    def quick_psnr_db(self, keep_float: tuple[str, ...], indices: Sequence[int]) -> float:
        """PSNR in dB to the FP32 network (u8 scale, mean over the slices ``indices``) of an engine made in haste."""
        calibration = self.request.calibration
        if calibration is not None:
            step = -(-len(calibration.images) // QUICK_CALIBRATION)
            calibration = replace(calibration, images=calibration.images[::step], names=calibration.names[::step])
        built = self._build(calibration, keep_float)
        bundle, opened = self._bundle(built), opener(built)
        with quiet("sccg_runtime.engine"):  # sums alone in eight bits are computed in float, which is as it should be
            session = opened(bundle, self.request.size)
            outputs = _run(bundle, session, [self.inputs[index] for index in indices], opened)
        pairs = zip(outputs, (self.fp32_outputs[index] for index in indices), strict=True)
        return float(np.mean([psnr_db(to_u8(output), to_u8(fp32))[0] for output, fp32 in pairs]))

    def _build(self, calibration: Calibration | None, keep_float: tuple[str, ...]) -> Built:
        request = self.request
        target: TargetModule = load_target(request.target, request.precision, request.gpu_arch, request.quantizer)
        asked: dict[str, str | bool | None] = {
            "gpu_arch": request.gpu_arch,
            "quantizer": request.quantizer,
            "saturation_safe": request.saturation_safe or None,
        }
        options = {name: value for name, value in asked.items() if value is not None}
        return target.build(
            self.graph,
            request.precision,
            request.size,
            calibration,
            keep_float=keep_float,
            **options,
        )

    def _bundle(self, built: Built) -> Bundle:
        """What opens the engine; what ran is not known yet, and says in which precision the rest is to run."""
        ran = built.precision_ran or ({"fp32": 1} if self._float32 else {})
        draft = contract_of(self.request, self.graph, built, ran, {"measured": False})
        return Bundle(self.request.target, draft, built.members, "")


def run_network(checkpoint: Checkpoint, images: Sequence[FloatArray]) -> list[FloatArray]:
    """Outputs of the FP32 network in PyTorch, one (1, H, W) per image."""
    return [infer(checkpoint.generator, image) for image in images]


def opener(built: Built) -> Opener:
    """How to run an engine at a size: its own way, or the clinics'."""
    return built.open or (lambda bundle, size: open_session(bundle, size=size))


def _run(bundle: Bundle, session: Session, images: Sequence[FloatArray], opened: Opener) -> list[FloatArray]:
    """Run slices at their own size, opening another session where it is not the engine's."""
    sessions = {session.description.size: session}
    outputs = []
    for image in images:
        size = size_of(image)
        if size not in sessions:
            sessions[size] = opened(bundle, size)
        outputs.append(sessions[size](image))
    return outputs
