"""Target ``ort``: ONNX Runtime on the CPU, FP32, or INT8 as QDQ (unsigned activations, signed per-channel weights)."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.graph import INPUT, Graph
from sccg_export.requirements import REQUIREMENTS
from sccg_runtime.contract import Precision
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

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
    float_output: bool = False,
) -> Built:
    """Make ``model.onnx``; its height and width stay free, so ``size`` only names the contract's engine size.

    Raises
    ------
    InputError
        INT8 without calibration slices.
    """
    import onnxruntime

    model = graph.model
    if precision == "int8":
        if calibration is None:
            raise InputError("int8 needs calibration slices")
        model = _quantise(graph, calibration, float_output)
    quantised, left = _count(model)
    return Built(
        members={"model.onnx": bytes(model.SerializeToString())},
        engine="ONNX Runtime",
        engine_version=str(onnxruntime.__version__),
        precision_ran={name: count for name, count in (("fp32", len(left)), ("int8", quantised)) if count},
        float_layers=tuple(left) if precision == "int8" else (),
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Slices in an order of chance, since the moving average weighs the last ones most."""

    def __init__(self, calibration: Calibration) -> None:
        order = np.random.default_rng(calibration.seed).permutation(len(calibration.images))
        self._images = (calibration.images[index] for index in order)

    def get_next(self) -> dict[str, FloatArray] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


def _quantise(graph: Graph, calibration: Calibration, float_output: bool) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared, target = (Path(folder) / name for name in ("in.onnx", "prepared.onnx", "out.onnx"))
        source.write_bytes(graph.to_bytes())
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED_OPS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # Ranges are averages over slices: the one brightest slice would make all others coarse.
            extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.02},
            nodes_to_exclude=_kept_float(onnx.load(prepared), float_output),
        )
        return onnx.load(target)


def _kept_float(model: onnx.ModelProto, float_output: bool) -> list[str]:
    """Nodes that lose more by eight bits than they gain in time.

    The first convolution, whose input's brightest pixel would decide how finely soft tissue is told apart; the last,
    because its output is the picture; and all that works on one number per channel (FiLM).
    """
    convolutions = [node.name for node in model.graph.node if node.op_type in _CONVOLUTIONS]
    weights = {tensor.name for tensor in model.graph.initializer}
    vectors: set[str] = set()  # maps of one pixel
    kept = {convolutions[0], *convolutions[-2 if float_output else -1 :]}
    for node in model.graph.node:
        computed = [name for name in node.input if name and name not in weights]
        if node.op_type == "ReduceMean" or (computed and all(name in vectors for name in computed)):
            vectors.update(node.output)
            kept.add(node.name)
        elif any(name in vectors for name in computed):
            kept.add(node.name)
    return sorted(kept)


def _count(model: onnx.ModelProto) -> tuple[int, list[str]]:
    """(convolutions between Q/DQ nodes, names of those that are not)."""
    producer = {name: node for node in model.graph.node for name in node.output}
    quantised, left = 0, []
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS:
            inputs = [producer.get(name) for name in node.input[:2]]
            if all(before is not None and before.op_type == "DequantizeLinear" for before in inputs):
                quantised += 1
            else:
                left.append(node.name)
    return quantised, left
