"""Static quantisation of an ONNX graph by ONNX Runtime's Q/DQ nodes; each target says which kind it takes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from sccg_export.calibration import Calibration, Slices
from sccg_export.graph import Graph
from sccg_runtime.errors import InputError

CONVOLUTIONS = ("Conv", "ConvTranspose")


def quantise_qdq(
    graph: Graph,
    calibration: Calibration,
    ops: Sequence[str],
    always_float: Callable[[onnx.ModelProto], Sequence[str]],
    keep_float: Sequence[str],
    *,
    extra: Mapping[str, Any],
    **choices: Any,
) -> onnx.ModelProto:
    """Put Q/DQ nodes around operations of the types ``ops``, weights per channel.

    Parameters
    ----------
    graph, calibration
        What to quantise, and the slices that set its ranges. Ranges are averages over slices: the one brightest slice
        would make all others coarse.
    always_float
        Given the prepared graph: names of the nodes that are left out.
    keep_float
        Further names.
    extra, choices
        The target's own options of ``quantize_static``: those in its ``extra_options``, and the others.

    Raises
    ------
    InputError
        A name in ``keep_float`` that the graph does not have.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared, target = (Path(folder) / name for name in ("in.onnx", "prepared.onnx", "out.onnx"))
        source.write_bytes(graph.to_bytes())
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        check_names(model, keep_float)
        quantize_static(
            prepared,
            target,
            Slices(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(ops),
            per_channel=True,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.02, **extra},
            nodes_to_exclude=sorted({*always_float(model), *keep_float}),
            **choices,
        )
        return onnx.load(target)


def stem(model: onnx.ModelProto) -> list[str]:
    """Names of the first convolution and, in a stem of two steps, of the second.

    Both shrink the map then, and whatever the first gives goes through the second: not so where a branch begins.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    first, second = [node for node in model.graph.node if node.op_type in CONVOLUTIONS][:2]
    met: set[str] = set()
    seen: set[str] = set()
    waiting = list(first.output)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            for node in readers.get(name, ()):
                if node.op_type in CONVOLUTIONS:
                    met.add(node.name)
                else:
                    waiting.extend(node.output)
    two_steps = met == {second.name} and all(max(_strides(node)) > 1 for node in (first, second))
    return [first.name, second.name] if two_steps else [first.name]


def _strides(node: onnx.NodeProto) -> list[int]:
    return next((list(one.ints) for one in node.attribute if one.name == "strides"), [1])


def convolutions(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of (convolutions whose map and weights both come out of DequantizeLinear, all others)."""
    dequantised = dequantised_values(model)
    quantised: list[str] = []
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type in CONVOLUTIONS:
            (quantised if dequantised.issuperset(node.input[:2]) else left).append(node.name)
    return quantised, left


def dequantised_values(model: onnx.ModelProto) -> frozenset[str]:
    """Names of all values that come out of DequantizeLinear."""
    return frozenset(name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output)


def check_names(model: onnx.ModelProto, keep_float: Sequence[str]) -> None:
    """InputError where a graph has no operation of such a name."""
    unknown = sorted(set(keep_float) - {node.name for node in model.graph.node})
    if unknown:
        raise InputError(f"the graph has no operation named {', '.join(unknown)} to keep in float")
