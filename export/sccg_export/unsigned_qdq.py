"""INT8 as CPUs take it: QDQ with unsigned activations and signed weights per channel, by either of two quantisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from sccg_export.calibration import Calibration
from sccg_export.graph import Graph
from sccg_export.inc_qdq import quantise_inc
from sccg_export.qdq import CONVOLUTIONS, check_names, convolutions, dequantised_values, quantise_qdq, stem
from sccg_export.requirements import Quantizer
from sccg_export.spread import spread

# ONNX Runtime's CPU provider has integer kernels for these; Q/DQ around others (transposed convolution, instance norm)
# only costs time. Pad moves integers as they are, so it may stay between two quantised layers.
QUANTISED_OPS = ("Conv", "Add", "Pad")


def quantise(
    graph: Graph, calibration: Calibration, keep_float: Sequence[str], *, quantizer: Quantizer, saturation_safe: bool
) -> onnx.ModelProto:
    """Put Q/DQ around convolutions and sums, but for those named and :func:`always_float`.

    Parameters
    ----------
    quantizer
        ``"ort"`` or ``"inc"``; both place Q/DQ alike, so either file runs in ONNX Runtime and OpenVINO. But ``"ort"``
        rounds what a convolution gives ahead of instance norm, too, and :func:`~sccg_export.spread.spread` goes before.
    saturation_safe
        Weights of seven bits.

    Raises
    ------
    InputError
        A name in ``keep_float`` that the graph does not have.
    """
    if quantizer == "inc":
        check_names(graph.model, keep_float)
        kept = {*always_float(graph.model), *keep_float}
        return quantise_inc(graph, calibration, kept, seven_bits=saturation_safe)
    from onnxruntime.quantization import QuantType

    return quantise_qdq(
        replace(graph, model=spread(graph.model, calibration.images)),
        calibration,
        QUANTISED_OPS,
        always_float,
        keep_float,
        extra={},
        activation_type=QuantType.QUInt8,
        reduce_range=saturation_safe,
    )


def always_float(model: onnx.ModelProto) -> list[str]:
    """Nodes that lose more by eight bits than they gain in time.

    The stem, whose input's brightest pixel would decide how finely soft tissue is told apart; the last convolution,
    because its output is the picture; sums with what an instance norm gave, which is float; and all that works on one
    number per channel (FiLM).
    """
    convolved = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    weights = {tensor.name for tensor in model.graph.initializer}
    normed = {name for node in model.graph.node if node.op_type == "InstanceNormalization" for name in node.output}
    vectors: set[str] = set()  # maps of one pixel
    kept = {*stem(model), convolved[-1].name}
    kept |= {node.name for node in model.graph.node if node.op_type == "Add" and not normed.isdisjoint(node.input)}
    for node in model.graph.node:
        computed = [name for name in node.input if name and name not in weights]
        if node.op_type == "ReduceMean" or (computed and all(name in vectors for name in computed)):
            vectors.update(node.output)
            kept.add(node.name)
        elif any(name in vectors for name in computed):
            kept.add(node.name)
    return sorted(kept)


def integer_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of convolutions that ONNX Runtime has integer kernels for: their output is rounded, too."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def rounded(node: onnx.NodeProto) -> bool:
        after = readers.get(node.output[0], [])
        return bool(after) and all(
            one.op_type == "QuantizeLinear" or (one.op_type in ("Relu", "Clip") and rounded(one)) for one in after
        )

    quantised = set(convolutions(model)[0])
    return [node.name for node in model.graph.node if node.name in quantised and rounded(node)]


def layers(model: onnx.ModelProto) -> tuple[list[str], list[str], list[str]]:
    """Names of (convolutions between Q/DQ nodes, convolutions that are not, sums between Q/DQ nodes)."""
    dequantised = dequantised_values(model)
    sums = [node.name for node in model.graph.node if node.op_type == "Add" and dequantised.issuperset(node.input)]
    return *convolutions(model), sums
