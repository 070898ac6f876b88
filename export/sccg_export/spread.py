"""Channels that instance norm reads, brought to one range: one step of eight bits for a map then serves all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from sccg_export.graph import INPUT
from sccg_export.qdq import CONVOLUTIONS
from sccg_runtime.intensity import FloatArray

SLICES = 24
LIMIT = 8.0
"""Largest factor: a channel that shows nothing is not blown up."""


def spread(model: onnx.ModelProto, images: Sequence[FloatArray]) -> onnx.ModelProto:
    """Shift and scale what convolutions give to instance norm so that every channel fills one range around zero.

    The norm takes each channel's own mean away and divides by its own deviation, so the function stays the same, but
    for the norm's epsilon, which weighs less. An engine that rounds a map to eight bits has one step for all its
    channels: the widest says how coarse the others are, and where one lies to one side of zero, the other is lost.
    Weights have a step for each channel and lose nothing.

    Parameters
    ----------
    model
        Float32, ``input`` (1, 1, H, W); it is not changed.
    images
        (1, H, W) in [-1, 1] each; ranges are means of the least and largest values over at most 24 of them.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    nodes = [node for node in _ahead_of_norms(made) if weights.keys() >= set(node.input[1:])]
    for node, (least, largest) in zip(nodes, _ranges(made, nodes, images), strict=True):
        half = (largest - least) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.nan_to_num(half.max() / half, nan=1.0).clip(1, LIMIT).astype(np.float32)
        outputs = (1, -1, 1, 1) if node.op_type == "ConvTranspose" else (-1, 1, 1, 1)
        bias = (weights[node.input[2]] if len(node.input) > 2 else 0) - (least + largest) / 2
        changed = {"weight": weights[node.input[1]] * factors.reshape(outputs), "bias": bias * factors}
        del node.input[1:]
        for part, values in changed.items():  # under a name of its own: another convolution may share the old one
            node.input.append(f"{node.output[0]}_spread_{part}")
            made.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.input[-1]))
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def _ahead_of_norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions whose output goes into an instance norm and nowhere else."""
    readers: dict[str, list[str]] = {output.name: ["output"] for output in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return [
        node
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS and readers.get(node.output[0]) == ["InstanceNormalization"]
    ]


def _ranges(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], images: Sequence[FloatArray]
) -> list[tuple[FloatArray, FloatArray]]:
    """(least, largest) value of each channel (C,) of each node's output, means over slices."""
    if not nodes:
        return []
    import onnxruntime as ort

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [node.output[0] for node in nodes]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    each = [
        [(values.min((0, 2, 3)), values.max((0, 2, 3))) for values in session.run(names, {INPUT: image[None]})]
        for image in images[:: -(-len(images) // SLICES)]
    ]
    return [(least, largest) for least, largest in (np.mean(found, axis=0) for found in zip(*each, strict=True))]
