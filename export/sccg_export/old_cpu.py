"""Old workstations: the bundle once more, in a process whose OpenVINO may use no newer instructions than AVX2.

CPUs without VNNI multiply eight-bit numbers in pairs and add in 16 bits, which saturates. The variable must be there
before OpenVINO loads, so a child process runs the file. What it measures is a simulated instruction set on this
machine, not another machine.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sccg_bench.latency import take_turns
from sccg_bench.quality import QualityResult
from sccg_bench.worker import Worker
from sccg_export.fallback import QUICK_PLAN
from sccg_export.runnables import BundleRunnable
from sccg_export.workshop import Workshop
from sccg_runtime.bundle import read_bundle, read_golden
from sccg_runtime.engine import physical_cores
from sccg_runtime.intensity import FloatArray
from sccg_runtime.selftest import least_db, worst_psnr_db

ISA = "AVX2"
_VARIABLE = "ONEDNN_MAX_CPU_ISA"
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})


@dataclass(frozen=True, slots=True)
class OldCpu:
    """What an engine does with AVX2 kernels.

    Attributes
    ----------
    outputs
        (1, H, W) in [-1, 1], one per held-out slice.
    quality
        Their figures.
    refused
        What the gate said to them, or that golden slices fail the self-test that such a CPU will run; or None.
    golden_to_engine_db
        PSNR in dB of the worst golden slice to the same engine without the limit.
    p50_ms
        At the engine's size.
    precision_ran
        Convolutions and matrix products by precision.
    """

    outputs: list[FloatArray]
    quality: QualityResult
    refused: str | None
    golden_to_engine_db: float
    p50_ms: float
    precision_ran: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For contract and ``drift.json``."""
        return {
            "isa": ISA,
            "measured": True,
            "engine_drift": self.quality.summary.engine_drift,
            "golden_to_engine_db": self.golden_to_engine_db,
            "p50_ms": self.p50_ms,
            "precision_ran": self.precision_ran,
            "refused": self.refused,
        }


def why_not(target: str) -> str | None:
    """Why an INT8 engine cannot be run as on an old CPU here, or None if it can."""
    if target != "openvino":
        return f"{target} cannot be held to an older instruction set"
    if platform.machine().lower() not in _X86:
        return f"this machine ({platform.machine()}) is no x86"
    return None


def not_measured(reason: str) -> dict[str, Any]:
    """What stands in the contract instead of figures."""
    return {"isa": ISA, "measured": False, "reason": reason}


def run_as_old_cpu(path: Path, workshop: Workshop) -> OldCpu:
    """Run the written bundle's golden slices and the held-out slices with AVX2 kernels.

    Raises
    ------
    WorkerError
        The child process failed.
    """
    bundle = read_bundle(path)
    golden = read_golden(bundle)
    runnable = BundleRunnable(path.stem, path)
    with Worker(runnable, physical_cores(), environment={_VARIABLE: ISA}) as worker:
        outputs = _in_order(worker, workshop.inputs)
        facts = worker.open(bundle.contract.engine_size)
        again = np.stack(worker.outputs(list(golden.inputs)))
        slow = worker.warm_up(QUICK_PLAN)
        latency = take_turns({path.stem: lambda: worker.block(QUICK_PLAN)}, {path.stem: slow}, QUICK_PLAN)[path.stem]
    result, refused = workshop.judge(outputs)
    to_engine = worst_psnr_db(again, golden.engine_outputs)
    found = to_engine, worst_psnr_db(again, golden.fp32_outputs)
    least = least_db(golden)
    if refused is None and any(one < limit for one, limit in zip(found, least, strict=True)):
        refused = (
            f"the bundle fails its self-test: {found[0]:.1f} dB to the exported engine, {found[1]:.1f} dB to FP32 "
            f"(below {least[0]:g} and {least[1]:.1f})"
        )
    return OldCpu(outputs, result, refused, to_engine, latency.p50, facts["precision_ran"])


def _in_order(worker: Worker, images: Sequence[FloatArray]) -> list[FloatArray]:
    """Run slices of any sizes, each size opened once; outputs in the order of the slices."""
    found: dict[int, FloatArray] = {}
    for size in sorted({image.shape[1:] for image in images}):
        worker.open((size[0], size[1]))
        found |= {index: worker.run(image) for index, image in enumerate(images) if image.shape[1:] == size}
    return [found[index] for index in range(len(images))]
