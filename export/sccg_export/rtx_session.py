"""Sessions that measure a TensorRT-RTX bundle: its engine on an NVIDIA GPU, or else its graph in ONNX Runtime."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import onnx

from sccg_export.graph import INPUT, OUTPUT
from sccg_runtime.bundle import Bundle
from sccg_runtime.engine import Description, Session, checked_session, physical_cores
from sccg_runtime.errors import BundleError, MissingDependencyError, RefusedError
from sccg_runtime.intensity import FloatArray

logger = logging.getLogger(__name__)


def import_tensorrt_rtx() -> Any:
    """Import ``tensorrt_rtx``.

    Raises
    ------
    MissingDependencyError
        It is not installed or does not load.
    """
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"tensorrt_rtx does not load ({error}): pip install '.[rtx]'") from None
    return tensorrt_rtx


@functools.cache
def trt_logger() -> Any:
    """TensorRT's messages as Python log records; it keeps the first logger of a process, so there is one."""
    trt = import_tensorrt_rtx()
    levels = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.INFO}

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            logger.log(levels.get(severity.name, logging.DEBUG), "%s", message)

    return Logger()


def gpu_arch() -> str | None:
    """Compute capability of the GPU that PyTorch sees, such as ``"8.6"``; None where it sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def open_graph(model: onnx.ModelProto, size: tuple[int, int], ran: dict[str, int]) -> Session:
    """The very graph that the engine was built from, in ONNX Runtime on the CPU, each node computed as it is typed.

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
    # Fusions compute several nodes in one precision; the engine's rounding is better followed without.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def run(images: FloatArray) -> FloatArray:
        output: FloatArray = session.run([OUTPUT], {INPUT: images})[0]
        return output

    told = Description(
        engine="ONNX Runtime",
        engine_version=str(onnxruntime.__version__),
        device="CPU",
        threads=threads,
        size=size,
        precision_ran=ran,
        precision_source="types of the network that the engine was built from",
    )
    return checked_session(run, told)


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
        There is no NVIDIA GPU, PyTorch cannot use it, or TensorRT-RTX is not installed.
    BundleError
        TensorRT-RTX cannot load the engine here: another GPU architecture or another version.
    """
    arch = gpu_arch()
    if arch is None:
        raise MissingDependencyError(
            f"{bundle.name} holds a TensorRT-RTX engine: it needs an NVIDIA GPU, its driver and a CUDA build of PyTorch"
        )
    trt = import_tensorrt_rtx()
    import torch

    from sccg_teacher_student.cuda_clock import event_time

    contract = bundle.contract
    engine = trt.Runtime(trt_logger()).deserialize_cuda_engine(bundle.members["model.engine"])
    if engine is None:
        raise BundleError(
            f"{bundle.name} was built with TensorRT-RTX {contract.engine_version}; {trt.__version__} on a GPU of SM "
            f"{arch} cannot load it: export it here with --gpu-arch {arch}"
        )
    context = engine.create_execution_context()
    shape = (1, 1, *size)
    if not context.set_input_shape(INPUT, shape):
        raise BundleError(f"{bundle.name}: the engine does not take {size[0]}x{size[1]}: export it with --size")
    given, made = (torch.empty(shape, dtype=torch.float32, device="cuda") for _ in range(2))
    context.set_tensor_address(INPUT, given.data_ptr())
    context.set_tensor_address(OUTPUT, made.data_ptr())
    times = [] if times_ms is None else times_ms
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(images: FloatArray) -> FloatArray:
        with torch.cuda.stream(stream):
            given.copy_(torch.from_numpy(np.array(images)))
            with event_time(times):
                done = context.execute_async_v3(stream.cuda_stream)
            if not done:
                raise RefusedError("TensorRT-RTX failed on a slice")
        stream.synchronize()
        return np.array(made.cpu().numpy(), np.float32)

    told = Description(
        engine="TensorRT-RTX",
        engine_version=str(trt.__version__),
        device=f"CUDA ({torch.cuda.get_device_name()})",
        threads=1,
        size=size,
        precision_ran=dict(contract.precision_ran or {}),
        precision_source="types of the network that the engine was built from",
    )
    return checked_session(run, told)
