"""Target ``tensorrt-rtx``: engines for NVIDIA RTX cards, built ahead of time on a machine without a GPU.

The network is strongly typed: every layer computes in the type that the graph gives it. Without a driver an engine can
be neither inspected nor run, so the layers' types are checked in the parsed network, before it is built. With the card
that it is for, it is also loaded, inspected and run.
"""

from __future__ import annotations

import time
from collections import Counter
from types import MappingProxyType
from typing import Any

import onnx
import torch

from sccg_export.built import Built
from sccg_export.calibration import Calibration, needed
from sccg_export.graph import INPUT, Graph, to_onnx
from sccg_export.layer_types import PRECISIONS, check_types
from sccg_export.qdq import convolutions
from sccg_export.requirements import quantizer_version
from sccg_export.symmetric_qdq import quantise
from sccg_export.trt_session import engine_layers, import_tensorrt, open_engine, open_graph, open_program, trt_logger
from sccg_export.trt_session import gpu_arch as present_gpu_arch
from sccg_export.typed_program import typed_program
from sccg_runtime.bundle import Bundle
from sccg_runtime.contract import Precision
from sccg_runtime.engine import Session
from sccg_runtime.errors import InputError, RefusedError

DEFAULT_GPU_ARCH = "8.6"  # GeForce RTX 30
GPU_ARCHS = MappingProxyType({"7.5": "SM75", "8.0": "SM80", "8.6": "SM86", "8.9": "SM89", "12.0": "SM120"})
SIDES = (64, 1024)  # height and width of slices in pixels that an engine takes, its own size always included
_CONVOLUTIONS = ("CONVOLUTION", "DECONVOLUTION")


def build(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    calibration: Calibration | None,
    *,
    keep_float: tuple[str, ...] = (),
    gpu_arch: str = DEFAULT_GPU_ARCH,
) -> Built:
    """Make ``model.engine``, tuned for ``size`` (rows, columns).

    Parameters
    ----------
    keep_float
        See :class:`sccg_export.targets.TargetModule`.
    gpu_arch
        Compute capability of the card that will run it, a key of ``GPU_ARCHS``.

    Raises
    ------
    InputError
        INT8 without calibration slices, or an architecture that is not known.
    RefusedError
        The network's types are not those that were asked for, or TensorRT-RTX cannot build it.
    """
    if gpu_arch not in GPU_ARCHS:
        raise InputError(f"--gpu-arch {gpu_arch} is none of {', '.join(GPU_ARCHS)}")
    model = graph.model
    if precision == "fp16":
        model = to_half(graph)
    elif precision == "int8":
        model = quantise(graph, needed(calibration), keep_float)
    quantised, left = convolutions(model)
    trt = import_tensorrt("tensorrt-rtx")
    builder = trt.Builder(trt_logger("tensorrt-rtx"))
    network = parse(trt, builder, model)
    ran, layers = inspect(network)
    check_types(precision, ran, layers)
    here = present_gpu_arch()
    on_engine = here == gpu_arch
    started = time.perf_counter()
    engine = bytes(_serialise(trt, builder, network, size, gpu_arch, detailed=on_engine))
    seconds = time.perf_counter() - started
    found = "no NVIDIA GPU here" if here is None else f"this GPU is SM {here}"
    where = "PyTorch, rounded as it is typed" if precision == "fp16" else "ONNX Runtime"

    def open_here(_: Bundle, size: tuple[int, int]) -> Session:
        return open_program(graph.network, size, ran) if precision == "fp16" else open_graph(model, size, ran)

    return Built(
        members={"model.engine": engine},
        engine="TensorRT-RTX",
        engine_version=str(trt.__version__),
        precision_ran=ran,
        float_layers=tuple(left) if precision == "int8" else (),
        int8_layers=tuple(quantised),
        quantizer=quantizer_version("ort") if precision == "int8" else "",
        open=open_engine if on_engine else open_here,
        measured_on="engine" if on_engine else "graph",
        details={
            "gpu_arch": gpu_arch,
            "engine_mib": len(engine) / 2**20,
            "build_seconds": seconds,
            "layers": layers,
            **({"engine_layers": _inspected(trt, engine)} if on_engine else {}),
        },
        note=f"engine for SM {gpu_arch}"
        + ("" if on_engine else f"; {found}: drift is measured on the same graph in {where}, not on the engine"),
    )


def to_half(graph: Graph) -> onnx.ModelProto:
    """The graph of the same network in FP16, with casts written out; see :func:`typed_program`."""
    example = torch.zeros(1, 1, *graph.size)
    return to_onnx(typed_program(graph.network, "fp16", example), example)


def parse(trt: Any, builder: Any, model: onnx.ModelProto) -> Any:
    """TensorRT's strongly typed network of an ONNX graph (RefusedError where it has no such layer)."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt_logger("tensorrt-rtx"))
    if not parser.parse(model.SerializeToString()):
        reason = " ".join(str(parser.get_error(0)).split()) if parser.num_errors else "no reason given"
        raise RefusedError(f"TensorRT-RTX cannot read the graph: {reason[:200]}")
    return network


def inspect(network: Any) -> tuple[dict[str, int], dict[str, int]]:
    """(convolutions by precision, all layers by ``TYPE dtype`` of their first output) of a network.

    A convolution whose image and weights both come from DequantizeLinear is an ``int8`` one.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {layer.get_output(i).name: layer.type.name for layer in layers for i in range(layer.num_outputs)}
    ran: Counter[str] = Counter()
    for layer in layers:
        if layer.type.name in _CONVOLUTIONS:
            inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
            before = [made_by.get(one.name) for one in inputs[:2]]
            name = layer.get_output(0).dtype.name
            ran["int8" if before == ["DEQUANTIZE"] * 2 else PRECISIONS.get(name, name)] += 1
    kinds = Counter(f"{layer.type.name} {layer.get_output(0).dtype.name}" for layer in layers)
    return dict(sorted(ran.items())), dict(sorted(kinds.items()))


def _inspected(trt: Any, engine: bytes) -> dict[str, int] | str:
    """Layers of an engine on the card that it is for, or why the inspector does not tell.

    It is told, not judged: the types were asserted in the network, and kernels are compiled when the engine is loaded.
    """
    loaded = trt.Runtime(trt_logger("tensorrt-rtx")).deserialize_cuda_engine(engine)
    if loaded is None:
        raise RefusedError("TensorRT-RTX cannot load the engine that it has just built for this GPU")
    try:
        return engine_layers(trt, loaded)[1]
    except RefusedError as error:
        return str(error)


def _serialise(
    trt: Any, builder: Any, network: Any, size: tuple[int, int], gpu_arch: str, *, detailed: bool = False
) -> Any:
    config = builder.create_builder_config()
    if detailed:  # else the inspector tells names only
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # else FP32 convolutions round to 10 bits of mantissa
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, GPU_ARCHS[gpu_arch]), 0)
    profile = builder.create_optimization_profile()
    least, most = (
        (1, 1, *(choose(side, limit) for side in size)) for choose, limit in zip((min, max), SIDES, strict=True)
    )
    profile.set_shape(INPUT, least, (1, 1, *size), most)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RefusedError("TensorRT-RTX cannot build the engine: --debug shows its messages")
    return engine
