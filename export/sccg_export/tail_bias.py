"""Means of the last convolution's channels, put right after quantisation: pixel shuffle makes a grid of their error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sccg_runtime.engine import cpu_properties, import_openvino, openvino_core, physical_cores
from sccg_runtime.intensity import FloatArray

SLICES = 12
CONVOLUTIONS = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution"})


def correct_tail_bias(model: Any, reference: Any, images: Sequence[FloatArray]) -> None:
    """Add to the last convolution's bias what its channels lack in the mean, where that moves the picture.

    A pixel counts by the slope of what brings the output into [-1, 1]: a hyperbolic tangent's, or a clip's, 1 within.

    Rounding shifts each channel's mean a little, and a channel of a space-to-depth student is every fourth pixel of
    every fourth row. It costs no time. (After bias correction, Nagel et al. 2019, but of the whole network at once.)

    Parameters
    ----------
    model
        Quantised OpenVINO model of one input (1, 1, H, W); changed in place, where its last convolution has a bias.
    reference
        The same in float32.
    images
        (1, H, W) in [-1, 1] each, of one size; at most 12 are used.
    """
    ours, theirs = _biased(model), _biased(reference)
    if ours is None or theirs is None:
        return
    some = images[:: -(-len(images) // SLICES)]
    wanted = _outputs(reference, theirs, some)
    ends_in_tanh = any(node.get_type_name() == "Tanh" for node in reference.get_ordered_ops())
    slope = 1 - np.tanh(wanted) ** 2 if ends_in_tanh else np.where(np.abs(wanted) < 1, 1, 0)
    errors = slope * (wanted - _outputs(model, ours, some))
    lacking = errors.sum((0, 2, 3)) / np.maximum(slope.sum((0, 2, 3)), 1)
    bias = next(value for value in ours.inputs() if _constant(value) is not None)
    corrected = (_constant(bias).get_data().ravel() + lacking).astype(np.float32)
    bias.replace_source_output(import_openvino().opset15.constant(corrected.reshape(1, -1, 1, 1)).output(0))


def _biased(model: Any) -> Any:
    """The sum of the last convolution and its bias, or None."""
    last = [node for node in model.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS][-1]
    sums = [
        value.get_node() for value in last.output(0).get_target_inputs() if value.get_node().get_type_name() == "Add"
    ]
    return next((node for node in sums if any(_constant(value) is not None for value in node.inputs())), None)


def _constant(value: Any) -> Any:
    """The constant that an input reads, as it is or reshaped, or None."""
    node = value.get_source_output().get_node()
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _outputs(model: Any, node: Any, images: Sequence[FloatArray]) -> FloatArray:
    """(N, C, h, w) of a node; float32 beside eight bits."""
    model.reshape([1, 1, *images[0].shape[-2:]])
    part = import_openvino().Model([node.output(0)], model.get_parameters())
    compiled = openvino_core().compile_model(part, "CPU", cpu_properties("int8", physical_cores(), {"fp32": 1}))
    return np.concatenate([compiled(image[None])[0] for image in images])
