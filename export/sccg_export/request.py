"""What export is asked for and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sccg_bench.protocols import Pair
from sccg_bench.quality import QualityResult
from sccg_export.bundle_writer import golden_bytes
from sccg_export.calibration import Calibration
from sccg_export.gate import DriftBudget
from sccg_export.requirements import Quantizer
from sccg_runtime.bundle import MAX_GOLDEN_BYTES, Bundle
from sccg_runtime.contract import Precision
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.record import TrainingRecord


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
    pairs, held_out
        Slices that drift is measured on, and whether the network did not learn from them; None where nobody knows.
    measured_on, measured_on_simulated
        Name of the data set that they come from (no path: the bundle travels), and whether it is the phantom.
    teacher_outputs, teacher_sha256
        What the teacher made of them, and the hash of its file, or None where no teacher is at hand.
    budget
        Of the gate.
    saturation_safe
        Seven-bit weights in every INT8 layer, for target ``ort`` on CPUs without VNNI.
    old_cpu_check
        Run an INT8 OpenVINO engine with AVX2 kernels, too, as CPUs without VNNI do.
    gpu_arch
        Compute capability to build for, such as ``"8.9"``; None for the target's default.
    quantizer
        What sets the ranges of ``int8``; None for the target's default.
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
    held_out: bool | None = True
    teacher_outputs: Sequence[FloatArray] | None = None
    teacher_sha256: str | None = None
    budget: DriftBudget = field(default_factory=DriftBudget)
    saturation_safe: bool = False
    old_cpu_check: bool = False
    gpu_arch: str | None = None
    quantizer: Quantizer | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was made.

    Attributes
    ----------
    bundle
        As read back from the file; of a refused engine, as it would have been written.
    quality
        Figures on the held-out slices.
    outputs, fp32_outputs
        Of the engine and of its FP32 network, one (1, H, W) per pair.
    beside
        Files that belong beside the bundle, by suffix.
    build_seconds
        From the graph to the engine's files; layers that went back to float were built again, and only the last counts.
    """

    bundle: Bundle
    quality: QualityResult
    outputs: list[FloatArray]
    fp32_outputs: list[FloatArray]
    beside: Mapping[str, bytes] = field(default_factory=dict)
    build_seconds: float | None = None


class DriftRefusedError(RefusedError):
    """The gate said no; carries what it saw, so that the worst slice can be shown."""

    def __init__(self, message: str, result: ExportResult) -> None:
        super().__init__(message)
        self.result = result


def check_request(request: ExportRequest) -> None:
    """Find out before any work what cannot end well.

    Raises
    ------
    InputError
        A size does not fit the network's stride or a bundle, slices are missing, seven-bit weights are asked of what
        does not need them, or the budget names a teacher that is not there.
    """
    stride = request.checkpoint.spec.stride
    sizes = {"size": request.size, "trained size": request.record.trained_size}
    sizes |= {f"slice {pair.label}": size_of(pair.given(request.record.direction)) for pair in request.pairs}
    for what, size in sizes.items():
        if not request.checkpoint.spec.takes(size):
            raise InputError(
                f"{what} {size[0]}x{size[1]}: both sides must be multiples of {stride}, {2 * stride} or more"
            )
    if golden_bytes(request.size) >= MAX_GOLDEN_BYTES:
        raise InputError(f"size {request.size[0]}x{request.size[1]} is more than a bundle holds: say a smaller --size")
    if not request.pairs:
        raise InputError("export needs held-out slices to measure its drift on")
    if request.saturation_safe and request.precision != "int8":
        raise InputError(f"--saturation-safe is for --int8, not for {request.precision}: leave it out")
    if request.saturation_safe and request.target != "ort":
        raise InputError(f"--saturation-safe is for --target ort: nothing saturates in {request.target}: leave it out")
    if request.budget.max_teacher_psnr_drop_db is not None and request.teacher_outputs is None:
        raise InputError("a budget for the drift to the teacher needs the teacher: say --teacher FILE")
    if request.calibration is not None:
        calibrated = {size_of(image) for image in request.calibration.images}
        if len(calibrated) != 1 or any(length % stride for size in calibrated for length in size):
            listed = ", ".join(f"{rows}x{columns}" for rows, columns in sorted(calibrated)) or "none"
            raise InputError(f"calibration slices must have one size whose sides are multiples of {stride}: {listed}")


def size_of(image: FloatArray) -> tuple[int, int]:
    """(rows, columns) of a slice (1, H, W)."""
    return image.shape[1], image.shape[2]
