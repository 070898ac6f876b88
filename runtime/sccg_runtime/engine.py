"""Inference sessions on the CPU: one function per target, wired by a table.

OpenVINO's Python package imports its model converter, which imports ``openvino_telemetry`` and reports the import to
a web service. :func:`import_openvino` keeps that module out of the process, so nothing is loaded, asked or sent.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sccg_runtime.bundle import Bundle
from sccg_runtime.contract import Precision, Target
from sccg_runtime.errors import BundleError, InputError, MissingDependencyError, RefusedError
from sccg_runtime.intensity import FloatArray

logger = logging.getLogger(__name__)
MAX_THREADS = 1024
_COUNTED = frozenset({"Convolution", "Deconvolution", "GroupConvolution", "MatMul", "FullyConnected"})
_ISA_WITHOUT_BF16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"})
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What really runs.

    Attributes
    ----------
    engine, engine_version
        Name and version of the inference engine.
    device
        ``"CPU"``, or ``"CUDA (NAME)"``.
    threads
        Threads that one slice runs on.
    size
        (rows, columns) that the session runs at.
    precision_ran
        Convolutions and matrix products by precision.
    precision_source
        Where ``precision_ran`` comes from: the engine's own report, or the graph.
    """

    engine: str
    engine_version: str
    device: str
    threads: int
    size: tuple[int, int]
    precision_ran: dict[str, int]
    precision_source: str

    @property
    def layers(self) -> str:
        """``precision_ran`` in words, such as ``"bf16 8, int8 5"``."""
        return ", ".join(f"{name} {count}" for name, count in self.precision_ran.items()) or "not counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """An engine as export made it, without a contract.

    Attributes
    ----------
    name
        What messages call it.
    target, precision
        That it was built for.
    precision_ran
        Convolutions by precision at export: tells where an int8 network may use bf16, and what ran where the engine
        itself cannot be asked. Empty: not yet known; None: nobody can say.
    members
        Content of the model's files by name, as in a bundle.
    """

    name: str
    target: Target
    precision: Precision
    precision_ran: Mapping[str, int] | None
    members: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """Runs one slice at a time; not for use from several threads at once.

    Attributes
    ----------
    run
        The engine itself: (1, 1, H, W) float32 -> (1, 1, H, W) float32, unchecked.
    description
        What really runs.
    """

    run: Callable[[FloatArray], FloatArray]
    description: Description

    def __call__(self, image: FloatArray) -> FloatArray:
        """(1, H, W) float32 in [-1, 1] -> (1, H, W) float32, a copy of its own.

        Raises
        ------
        InputError, BundleError, RefusedError
            Shape or type of the input, the shape of the output, or a value in it that is not finite.
        """
        expected = (1, *self.description.size)
        if image.shape != expected or image.dtype != np.float32:
            raise InputError(f"the session takes float32 {expected}, not {image.dtype} {image.shape}")
        output = self.run(image[np.newaxis])
        if output.shape != (1, *expected):
            raise BundleError(f"the engine gives {output.shape}, not {(1, *expected)}")
        if not np.isfinite(output).all():
            raise RefusedError("the engine gave values that are not finite: the output is not used")
        return np.array(output[0], np.float32)


def open_session(bundle: Bundle, *, size: tuple[int, int] | None = None, threads: int | None = None) -> Session:
    """Compile a bundle's engine for the CPU.

    Parameters
    ----------
    bundle
        From :func:`sccg_runtime.bundle.read_bundle`.
    size
        (rows, columns) to run at; default: the contract's ``engine_size``. Must be a multiple of its ``stride``.
    threads
        Threads for one slice; default: physical cores that this process may use.

    Raises
    ------
    InputError
        The size does not fit the stride, or threads is below 1 or above 1024.
    BundleError
        The engine cannot be loaded.
    MissingDependencyError
        The engine's package, or a CPU feature that the precision needs, is not here; or the target needs a GPU.
    """
    contract = bundle.contract
    wanted = contract.engine_size if size is None else size
    if any(side < 1 or side % contract.stride for side in wanted):
        raise InputError(f"size {wanted[0]}x{wanted[1]} is not a multiple of the bundle's stride {contract.stride}")
    count = physical_cores() if threads is None else threads
    if not 1 <= count <= MAX_THREADS:
        raise InputError(f"threads must be 1 to {MAX_THREADS}, not {count}")
    files = EngineFiles(
        name=bundle.name,
        target=contract.target,
        precision=contract.precision_asked,
        precision_ran=contract.precision_ran,
        members=bundle.members,
    )
    return open_engine(files, wanted, count)


def open_engine(files: EngineFiles, size: tuple[int, int], threads: int) -> Session:
    """Compile an engine for the CPU, at ``size`` (rows, columns), both multiples of the network's stride.

    Raises
    ------
    BundleError, MissingDependencyError
        See :func:`open_session`.
    """
    return _OPENERS[files.target](files, size, threads)


def physical_cores() -> int:
    """Physical cores that this process may run on; logical ones where the system does not tell."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            return len(allowed)
    return max(1, len(cores))


def import_openvino() -> Any:
    """Import ``openvino`` without ``openvino_telemetry``; an OpenVINO that is imported already is left as it is.

    Raises
    ------
    MissingDependencyError
        OpenVINO is not installed or does not load.
    """
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails from here on
    try:
        return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"openvino does not load ({error}): pip install --force-reinstall openvino"
        ) from None


@functools.cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process.

    A core replaces the process's signal stack. Of two that live at once, the second one's end brings back the first
    one's stack; if the first has gone by then, the next signal (Ctrl-C) ends the process with a segmentation fault.
    """
    return import_openvino().Core()


def openvino_version() -> str:
    """Version of OpenVINO without its build number, such as ``"2026.4.1"``."""
    return str(import_openvino().get_version()).split("-")[0]


def cpu_capabilities() -> frozenset[str]:
    """What OpenVINO computes in by itself on this CPU, such as ``{"FP32", "INT8", "BF16"}``.

    Where the environment keeps oneDNN to older instructions, OpenVINO still names BF16, and then cannot compile for it.

    Raises
    ------
    MissingDependencyError
        OpenVINO is not installed or does not load.
    """
    found = frozenset(openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    limits = {os.environ.get(name, "").upper() for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
    return found - {"BF16"} if limits & _ISA_WITHOUT_BF16 else found


def cpu_properties(precision: Precision, threads: int, measured: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Compile options for one slice at a time; arithmetic is never left to OpenVINO's choice (bf16 where it can).

    What an int8 network does not compute in eight bits runs in bf16 on a CPU that has it: instance norm waits for
    memory, and then moves half as much. But not where its drift was measured in float32 (``measured``: convolutions by
    precision at export; empty: not yet known).
    """
    halved = precision == "bf16"
    if precision == "int8" and measured is not None and (not measured or "bf16" in measured):
        halved = "BF16" in cpu_capabilities()
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if halved else "f32",
    }


def _open_openvino(files: EngineFiles, size: tuple[int, int], threads: int) -> Session:
    core = openvino_core()
    if files.precision == "bf16" and "BF16" not in cpu_capabilities():
        raise MissingDependencyError("this CPU has no BF16 and the bundle asks for it: export an int8 or fp32 bundle")
    try:
        model = core.read_model(files.members["model.xml"], files.members["model.bin"])
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise BundleError(
                f"{files.name}: the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs"
            )
        shape = [1, 1, *size]
        partial = model.inputs[0].get_partial_shape()
        if partial.is_dynamic or list(partial.to_shape()) != shape:
            model.reshape(shape)
        compiled = core.compile_model(
            model,
            "CPU",
            cpu_properties(files.precision, threads, files.precision_ran),
        )
        request = compiled.create_infer_request()
        ran = precision_ran(compiled)
    except RuntimeError as error:
        raise BundleError(f"{files.name}: OpenVINO cannot load the model ({_last_line(error)})") from None
    if files.precision == "int8" and ran.get("int8", 0) == 0:
        logger.warning("%s asks for int8, but no layer runs in int8 on this CPU", files.name)

    def run(images: FloatArray) -> FloatArray:
        try:
            output: FloatArray = request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)[0]
        except RuntimeError as error:
            raise RefusedError(f"OpenVINO failed on a slice ({_last_line(error)})") from None
        return output

    told = Description(
        engine="OpenVINO",
        engine_version=openvino_version(),
        device="CPU",
        threads=threads,
        size=size,
        precision_ran=ran,
        precision_source="runtimePrecision of the compiled model",
    )
    return Session(run, told)


def precision_ran(compiled: Any) -> dict[str, int]:
    """Convolutions and matrix products of a compiled OpenVINO model by the precision that they run in.

    For weights stored in FP16, OpenVINO's ``runtimePrecision`` names the stored type; then the kernel's name, such as
    ``brgconv_avx512_f32``, says what is computed.
    """
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "layerType" not in info or "runtimePrecision" not in info:
            continue
        if info["layerType"].astype(str) in _COUNTED:
            name = info["runtimePrecision"].astype(str)
            if name == "f16" and "primitiveType" in info and info["primitiveType"].astype(str).endswith("_f32"):
                name = "f32"
            name = _PRECISIONS.get(name, name)
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _open_ort(files: EngineFiles, size: tuple[int, int], threads: int) -> Session:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError('this bundle needs ONNX Runtime: pip install "sccg-runtime[ort]"') from None
    if files.precision == "bf16":
        raise MissingDependencyError("ONNX Runtime has no BF16 kernels on the CPU: export an int8 or fp32 bundle")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(files.members["model.onnx"], options, ["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise BundleError(f"{files.name}: ONNX Runtime cannot load the model ({_last_line(error)})") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(session.get_outputs()) != 1:
        raise BundleError(f"{files.name}: the model does not have one input and one output")
    fixed = inputs[0].shape
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(fixed, (1, 1, *size), strict=False)):
        raise InputError(f"{files.name} was exported for {fixed[2]}x{fixed[3]} only, not {size[0]}x{size[1]}")
    name = inputs[0].name

    def run(images: FloatArray) -> FloatArray:
        try:
            output: FloatArray = session.run(None, {name: np.ascontiguousarray(images)})[0]
        except Exception as error:
            raise RefusedError(f"ONNX Runtime failed on a slice ({_last_line(error)})") from None
        return output

    told = Description(
        engine="ONNX Runtime",
        engine_version=onnxruntime.__version__,
        device="CPU",
        threads=threads,
        size=size,
        precision_ran=dict(files.precision_ran or {}),
        precision_source="counted in the graph at export; ONNX Runtime reports no precision per layer",
    )
    return Session(run, told)


def _refuse_tensorrt(files: EngineFiles, size: tuple[int, int], threads: int) -> Session:
    raise MissingDependencyError(
        f"{files.name} holds a {files.target} engine, which needs an NVIDIA GPU and cannot run here: "
        "sccg-runtime computes on the CPU; export the student with --target openvino"
    )


_OPENERS: Mapping[Target, Callable[[EngineFiles, tuple[int, int], int], Session]] = MappingProxyType(
    {
        "openvino": _open_openvino,
        "ort": _open_ort,
        "tensorrt-rtx": _refuse_tensorrt,
        "tensorrt": _refuse_tensorrt,
    }
)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
