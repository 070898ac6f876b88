"""Sessions of TensorRT bundles: the engine on an NVIDIA GPU, or what it was built from, on the CPU."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from sccg_export.graph import INPUT, OUTPUT
from sccg_export.layer_types import engine_types
from sccg_export.requirements import REQUIREMENTS
from sccg_export.typed_program import Rounded, typed_program
from sccg_runtime.bundle import Bundle
from sccg_runtime.contract import Target
from sccg_runtime.engine import Description, Session, physical_cores
from sccg_runtime.errors import BundleError, MissingDependencyError, RefusedError
from sccg_runtime.intensity import FloatArray

logger = logging.getLogger(__name__)


# Target -> (its engine's name, the package that runs it).
ENGINES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"tensorrt-rtx": ("TensorRT-RTX", "tensorrt_rtx"), "tensorrt": ("TensorRT", "tensorrt")}
)
# Where a target's export found out what its convolutions compute in.
PRECISION_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "tensorrt-rtx": "types of the network that the engine was built from",
        "tensorrt": "TensorRT's engine inspector, at export",
    }
)


def import_tensorrt(target: Target) -> Any:
    """Import the package that runs a target's engines; both have the same interface.

    Raises
    ------
    MissingDependencyError
        It is not installed or does not load.
    """
    package = ENGINES[target][1]
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        install = REQUIREMENTS[target].install
        raise MissingDependencyError(f"{package} does not load ({error}): {install}") from None


@functools.cache
def trt_logger(target: Target) -> Any:
    """TensorRT's messages as Python log records; it keeps the first logger of a process, so there is one."""
    trt = import_tensorrt(target)
    levels = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.INFO}

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            logger.log(levels.get(severity.name, logging.DEBUG), "%s", message)

    return Logger()


def gpu_arch() -> str | None:
    """Compute capability of the GPU that PyTorch sees, such as ``"8.6"``; None where it sees none."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def open_program(network: nn.Module, size: tuple[int, int], ran: dict[str, int]) -> Session:
    """The FP16 program that the engine was built from, in PyTorch on the CPU, each value rounded as it is typed.

    ONNX Runtime's CPU kernels would compute all of it in float32.

    Parameters
    ----------
    network
        Folded, as for :func:`sccg_export.typed_program.typed_program`.
    size, ran
        As for :func:`open_graph`.
    """
    program = Rounded(typed_program(network, "fp16", torch.zeros(1, 1, *size)))

    def run(images: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(program.run(torch.from_numpy(np.array(images))).numpy(), np.float32)

    return Session(run, _told("PyTorch", torch.__version__, torch.get_num_threads(), size, ran))


def open_graph(model: onnx.ModelProto, size: tuple[int, int], ran: dict[str, int]) -> Session:
    """The very graph that an FP32 or INT8 engine was built from, in ONNX Runtime on the CPU.

    Parameters
    ----------
    size
        (rows, columns).
    ran
        Convolutions by precision, as TensorRT's network has them.
    """
    import onnxruntime

    threads = physical_cores()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Fusions round otherwise; the engine's rounding is better followed without.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def run(images: FloatArray) -> FloatArray:
        output: FloatArray = session.run([OUTPUT], {INPUT: images})[0]
        return output

    return Session(run, _told("ONNX Runtime", str(onnxruntime.__version__), threads, size, ran))


def _told(engine: str, version: str, threads: int, size: tuple[int, int], ran: dict[str, int]) -> Description:
    return Description(
        engine=engine,
        engine_version=version,
        device="CPU",
        threads=threads,
        size=size,
        precision_ran=ran,
        precision_source=PRECISION_SOURCES["tensorrt-rtx"],
    )


def open_engine(bundle: Bundle, size: tuple[int, int], times_ms: list[float] | None = None) -> Session:
    """A bundle's engine on the NVIDIA GPU; a call copies the slice there and back and waits.

    Parameters
    ----------
    size
        (rows, columns), within what the engine was built for.
    times_ms
        To be filled with the GPU's own time of every call, without copies.

    Raises
    ------
    MissingDependencyError
        There is no NVIDIA GPU, PyTorch cannot use it, or the engine's package is not installed.
    BundleError
        The engine cannot be loaded here: another GPU architecture or another version; or it does not take the size.
    """
    target = bundle.contract.target
    name = ENGINES[target][0]
    arch = gpu_arch()
    if arch is None:
        raise MissingDependencyError(
            f"{bundle.name} holds a {name} engine: it needs an NVIDIA GPU, its driver and a CUDA build of PyTorch"
        )
    trt = import_tensorrt(target)
    from sccg_teacher_student.cuda_clock import event_time

    contract = bundle.contract
    engine = trt.Runtime(trt_logger(target)).deserialize_cuda_engine(bundle.members["model.engine"])
    if engine is None:
        raise BundleError(
            f"{bundle.name} was built with {name} {contract.engine_version}; {trt.__version__} on a GPU of SM "
            f"{arch} cannot load it: export it here" + (f" with --gpu-arch {arch}" if target == "tensorrt-rtx" else "")
        )
    source, sink = tensor_names(trt, engine)
    context = engine.create_execution_context()
    shape = (1, 1, *size)
    if not context.set_input_shape(source, shape):
        raise BundleError(f"{bundle.name}: the engine does not take {size[0]}x{size[1]}: export it with --size")
    given, made = (torch.empty(shape, dtype=torch.float32, device="cuda") for _ in range(2))
    context.set_tensor_address(source, given.data_ptr())
    context.set_tensor_address(sink, made.data_ptr())
    times = [] if times_ms is None else times_ms
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(images: FloatArray) -> FloatArray:
        with torch.cuda.stream(stream):
            given.copy_(torch.from_numpy(np.array(images)))
            with event_time(times):
                done = context.execute_async_v3(stream.cuda_stream)
            if not done:
                raise RefusedError(f"{name} failed on a slice")
        stream.synchronize()
        return np.array(made.cpu().numpy(), np.float32)

    told = Description(
        engine=name,
        engine_version=str(trt.__version__),
        device=f"CUDA ({torch.cuda.get_device_name()})",
        threads=1,
        size=size,
        precision_ran=dict(contract.precision_ran or {}),
        precision_source=PRECISION_SOURCES[target],
    )
    return Session(run, told)


def engine_layers(trt: Any, engine: Any) -> tuple[dict[str, int], dict[str, int]]:
    """What TensorRT's inspector says of an engine: see :func:`sccg_export.layer_types.engine_types`."""
    return engine_types(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def tensor_names(trt: Any, engine: Any) -> tuple[str, str]:
    """(name of the input, name of the output) of an engine with one each."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {engine.get_tensor_mode(name): name for name in names}
    return modes[trt.TensorIOMode.INPUT], modes[trt.TensorIOMode.OUTPUT]
