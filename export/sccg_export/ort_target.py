"""Target ``ort``: ONNX Runtime on the CPU, FP32, or INT8 as QDQ (unsigned activations, signed per-channel weights)."""

from __future__ import annotations

import onnx
from onnxruntime.quantization import QuantType

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.graph import Graph
from sccg_export.qdq import quantise_qdq
from sccg_export.requirements import REQUIREMENTS
from sccg_runtime.contract import Precision
from sccg_runtime.errors import InputError

PRECISIONS: tuple[Precision, ...] = REQUIREMENTS["ort"].precisions
# The CPU provider has integer kernels for these; Q/DQ around others (transposed convolution, instance norm) only
# costs time. Pad moves integers as they are, so it may stay between two quantised layers.
QUANTISED_OPS = ("Conv", "Add", "Pad")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def build(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    calibration: Calibration | None,
    *,
    keep_float: tuple[str, ...] = (),
    saturation_safe: bool = False,
) -> Built:
    """Make ``model.onnx``; its height and width stay free, so ``size`` only names the contract's engine size.

    See :class:`sccg_export.targets.TargetModule`.

    Raises
    ------
    InputError
        INT8 without calibration slices, or an unknown name in ``keep_float``.
    """
    import onnxruntime

    model = graph.model
    if precision == "int8":
        if calibration is None:
            raise InputError("int8 needs calibration slices")
        model = quantise_qdq(
            graph,
            calibration,
            QUANTISED_OPS,
            _always_float,
            keep_float,
            extra={},
            activation_type=QuantType.QUInt8,
            reduce_range=saturation_safe,
        )
    quantised, left, sums = _layers(model)
    return Built(
        members={"model.onnx": bytes(model.SerializeToString())},
        engine="ONNX Runtime",
        engine_version=str(onnxruntime.__version__),
        precision_ran={name: count for name, count in (("fp32", len(left)), ("int8", len(quantised))) if count},
        float_layers=tuple(left) if precision == "int8" else (),
        int8_layers=(*quantised, *sums),
    )


def _always_float(model: onnx.ModelProto) -> list[str]:
    """Nodes that lose more by eight bits than they gain in time.

    The first convolution, whose input's brightest pixel would decide how finely soft tissue is told apart; the last,
    because its output is the picture; and all that works on one number per channel (FiLM).
    """
    convolutions = [node.name for node in model.graph.node if node.op_type in _CONVOLUTIONS]
    weights = {tensor.name for tensor in model.graph.initializer}
    vectors: set[str] = set()  # maps of one pixel
    kept = {convolutions[0], convolutions[-1]}
    for node in model.graph.node:
        computed = [name for name in node.input if name and name not in weights]
        if node.op_type == "ReduceMean" or (computed and all(name in vectors for name in computed)):
            vectors.update(node.output)
            kept.add(node.name)
        elif any(name in vectors for name in computed):
            kept.add(node.name)
    return sorted(kept)


def _layers(model: onnx.ModelProto) -> tuple[list[str], list[str], list[str]]:
    """Names of (convolutions between Q/DQ nodes, convolutions that are not, sums that read at least one Q/DQ pair)."""
    dequantised = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    quantised: list[str] = []
    left: list[str] = []
    sums: list[str] = []
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS:
            (quantised if all(name in dequantised for name in node.input[:2]) else left).append(node.name)
        elif node.op_type == "Add" and any(name in dequantised for name in node.input):
            sums.append(node.name)
    return quantised, left, sums
