"""No two neighbouring weights of like sign are too much for 16 bits, and nothing is rounded coarser than that needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper
from small_models import fresh

from sccg_export import openvino_target
from sccg_export.calibration import needed
from sccg_export.graph import export_graph
from sccg_export.pair_sums import finest_scale
from sccg_export.request import ExportRequest
from sccg_export.spread import spread
from sccg_runtime.engine import import_openvino
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.spec import student_spec

LARGEST = 2**15 - 1
weights = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 2), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-8, 8, width=32))
)


def worst_sums(rounded: FloatArray) -> FloatArray:
    """Largest magnitude (O,) of what two neighbouring inputs of (O, I, h, w) add up to, by brute force."""
    count = rounded.shape[1]
    found = np.zeros(len(rounded))
    for first in range(0, count, 2):
        pair = rounded[:, first : first + 2]
        for low in (False, True):
            ends = np.minimum(pair, 0) if low else np.maximum(pair, 0)
            found = np.maximum(found, np.abs(255 * ends.sum(1)).max((1, 2)))
    return found


@given(weights)
def test_no_pair_saturates_and_the_scale_is_the_finest(weight: FloatArray) -> None:
    scale = finest_scale(weight, 1)
    steps = weight / scale.reshape(-1, 1, 1, 1)
    assert (worst_sums(np.rint(steps)) <= LARGEST).all()
    assert (np.abs(steps) <= 127.001).all()
    used = scale != 1
    assert (np.abs(steps[~used]) < 1e-35).all()
    np.testing.assert_allclose(worst_sums(steps)[used], 255 * 127, rtol=1e-4)
    np.testing.assert_array_equal(finest_scale(weight.swapaxes(0, 1), 0), scale)
    np.testing.assert_array_equal(finest_scale(np.stack([weight, -weight]), 2), [scale, scale])


@pytest.mark.parametrize("quantizer", ["nncf", "ort", "inc"])
@pytest.mark.parametrize("name", ["s2d-16x2-in", "s2d-16x2-g8-in1", "resnet-8x1-in"])
def test_every_int8_convolution_of_an_engine_is_safe_and_close_to_its_float_weights(
    name: str, quantizer: str, request_for: Callable[..., ExportRequest]
) -> None:
    """Transposed convolutions, too, which have their output channels second."""
    graph = export_graph(fresh(student_spec(name)), (64, 64))
    calibration = needed(request_for().calibration)
    built = openvino_target.build(graph, "int8", (64, 64), calibration, quantizer=quantizer)
    core = import_openvino().Core()
    engine = core.read_model(built.members["model.xml"], built.members["model.bin"])
    rounded_from = spread(graph.model, calibration.images) if quantizer == "ort" else graph.model
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded_from.graph.initializer}
    floats = {node.name: stored[node.input[1]] for node in rounded_from.graph.node if node.op_type.startswith("Conv")}
    checked = 0
    for node in engine.get_ordered_ops():
        if "Convolution" not in node.get_type_name():
            continue
        scaled = node.input_value(1).get_node()
        if scaled.get_type_name() != "Multiply":
            continue
        rounded, scale = (value.get_node() for value in scaled.input_values())
        while rounded.get_type_name() != "Constant":
            rounded = rounded.input_value(0).get_node()
        steps = np.array(rounded.get_data(), np.float32)
        scale = np.array(scale.get_data(), np.float32)
        transposed = node.get_type_name() == "ConvolutionBackpropData"
        inputs_second = steps.swapaxes(0, 1) if transposed else steps.reshape(-1, *steps.shape[-3:])
        assert (worst_sums(inputs_second) <= LARGEST).all()
        weight = floats[openvino_target._graph_name(node)].reshape(steps.shape)
        assert (np.abs(steps * scale - weight) / scale).max() < (0.51 if quantizer == "nncf" else 1.01)
        checked += 1
    assert checked == sum("onv" in layer for layer in built.int8_layers)
    assert checked >= 3
