"""INT8 as TensorRT takes it: QDQ with symmetric int8 activations, int8 weights per channel, and float32 biases."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from sccg_export.calibration import Calibration
from sccg_export.graph import Graph
from sccg_export.qdq import quantise_qdq, stem


def quantise(graph: Graph, calibration: Calibration, keep_float: Sequence[str]) -> onnx.ModelProto:
    """Put Q/DQ around convolutions, but for those named and :func:`always_float`."""
    from onnxruntime.quantization import QuantType

    return quantise_qdq(
        graph,
        calibration,
        ["Conv"],
        always_float,
        keep_float,
        extra={
            "ActivationSymmetric": True,  # TensorRT rejects uint8 and zero points other than 0
            "WeightSymmetric": True,
            "QuantizeBias": False,  # and DequantizeLinear of int32
        },
        activation_type=QuantType.QInt8,
    )


def always_float(model: onnx.ModelProto) -> list[str]:
    """Convolutions that lose more by eight bits than they gain.

    The stem, whose input's brightest pixel would decide how finely soft tissue is told apart; the last, because its
    output is the picture; and those on one number per channel (FiLM).
    """
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    vectors = [node.name for node in found if shapes.get(node.input[0], [])[2:] == [1, 1]]
    return [*stem(model), *vectors, found[-1].name]
