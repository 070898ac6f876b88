"""Eight-bit weights that no CPU's kernels saturate on.

CPUs without VNNI multiply unsigned activations by signed weights and add the products of two neighbouring input
channels in 16 bits: 255 * 127 twice does not fit. Where weights are rounded so that two of like sign never add up to
more than 128, it always does: 255 * 128 < 32767.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from sccg_runtime.engine import import_openvino
from sccg_runtime.intensity import FloatArray

_INPUT_AXIS: Mapping[str, int] = MappingProxyType(
    {"Convolution": 1, "GroupConvolution": 2, "ConvolutionBackpropData": 0}
)
"""Of weights (O, I, h, w), (groups, O, I, h, w) and (I, O, h, w)."""


def float_weights(model: Any) -> dict[str, FloatArray]:
    """Constant weights of an OpenVINO model's convolutions, by the operation's name."""
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in _INPUT_AXIS:
            weight = node.input_value(1).get_node()
            if weight.get_type_name() == "Constant":
                found[str(node.get_friendly_name())] = np.array(weight.get_data(), np.float32)
    return found


def fit_pairs(model: Any, weights: Mapping[str, FloatArray]) -> None:
    """Round weights again, each output channel as finely as its largest sum of two neighbours allows.

    On nearly all channels that is coarser than eight bits and finer than seven.

    Parameters
    ----------
    model
        Quantised OpenVINO model, weights as int8 constants times a scale per output channel; changed in place.
    weights
        From :func:`float_weights` before it was quantised; what is missing is rounded a second time instead.
    """
    ops = import_openvino().opset15
    for node in model.get_ordered_ops():
        axis = _INPUT_AXIS.get(node.get_type_name())
        if axis is None or (stored := _stored(node.input_value(1).get_node())) is None:
            continue
        rounded, scale = stored
        weight = weights.get(str(node.get_friendly_name()), rounded * scale)
        finest = finest_scale(weight, axis).reshape(scale.shape)
        new = ops.convert(ops.constant(np.rint(weight / finest).astype(np.int8)), "f32")
        node.input(1).replace_source_output(ops.multiply(new, ops.constant(finest)).output(0))
    model.validate_nodes_and_infer_types()


def finest_scale(weight: FloatArray, axis: int) -> FloatArray:
    """Smallest scale of each output channel with which rounded neighbours of like sign add up to 128 at most.

    (O,), or (groups, O). Rounding adds at most one half to each of the two, so 127 has to do before it.

    Parameters
    ----------
    weight
        (O, I, h, w) with ``axis`` 1, (groups, O, I, h, w) with 2, (I, O, h, w) with 0.
    axis
        Of input channels; the first and second, third and fourth and so on are neighbours.
    """
    inputs_first = np.moveaxis(weight, axis, 0)
    even = np.pad(inputs_first, ((0, len(inputs_first) % 2), *((0, 0),) * (weight.ndim - 1)))
    pairs = even.reshape(-1, 2, *even.shape[1:])
    sums = np.maximum(pairs.clip(min=0).sum(1), (-pairs).clip(min=0).sum(1))
    scale = (sums.max((0, -2, -1)) / 127).astype(np.float32)
    return np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))


def _stored(node: Any) -> tuple[FloatArray, FloatArray] | None:
    """(rounded weights, scale per output channel), or None where a convolution has none in eight bits.

    Grouped ones may have been rounded in ONNX's shape, (groups O, I, h, w).
    """
    shape = node.get_output_shape(0)
    if grouped := node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Multiply":
        return None
    rounded, scale = (_constant(value.get_node()) for value in node.input_values())
    if rounded is None or scale is None or rounded.dtype != np.int8:
        return None
    own = (*shape[:2], 1, 1, 1) if grouped else node.input_value(1).get_shape()
    return rounded.astype(np.float32).reshape(shape), scale.astype(np.float32).reshape(own)


def _constant(node: Any) -> Any:
    """The array behind changes of type and shape and behind the zero point, which signed weights have at 0; or None."""
    while node.get_type_name() in ("Convert", "Subtract", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return np.array(node.get_data()) if node.get_type_name() == "Constant" else None
