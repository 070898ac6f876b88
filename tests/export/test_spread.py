"""Channels ahead of instance norm come to one range: the same function, and eight bits in between lose less."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from small_models import head, off_centre
from torch import nn

from sccg_export.calibration import Calibration
from sccg_export.graph import Graph, export_graph
from sccg_export.spread import LIMIT, spread
from sccg_export.unsigned_qdq import quantise
from sccg_runtime.intensity import FloatArray

IMAGES = [head(64, 64, seed) for seed in range(3)]


def used(name: str) -> nn.Module:
    """A network whose channels ahead of norms are of very different ranges, and far from zero."""
    network = off_centre(name)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                module.weight.mul_(torch.linspace(0.3, 1, len(module.weight)).reshape(-1, 1, 1, 1))
    return network


def graph_of(name: str, images: list[FloatArray]) -> Graph:
    return export_graph(used(name), (64, 64), images)


def run(model: onnx.ModelProto, image: FloatArray, name: str = "output") -> FloatArray:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    if name != "output":
        shown.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {"input": image[None]})[0][0])


def norm_inputs(model: onnx.ModelProto) -> list[str]:
    return [node.input[0] for node in model.graph.node if node.op_type == "InstanceNormalization"]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("s2d-8x2-h4-nostd-in1-tanh", 5),
        ("s2d-8x2-s4-nostd-in1-tanh", 6),
        ("s2d-8x2-g4-nostd-in1", 4),
        ("resnet-4x1-in", 7),
        ("s2d-8x2-in", 5),
        ("s2d-8x2-u16-branch-in", 11),
    ],
)
def test_the_function_stays_the_same_while_channels_come_to_one_range(name: str, norms: int, *, centred: bool) -> None:
    model = graph_of(name, IMAGES if centred else []).model
    before = model.SerializeToString()
    made = spread(model, IMAGES[:1])
    assert model.SerializeToString() == before, "the model that was given is not changed"
    onnx.checker.check_model(made, full_check=True)
    assert [(node.name, node.output[0]) for node in made.graph.node] == [
        (node.name, node.output[0]) for node in model.graph.node
    ]
    outputs = [run(model, image) for image in IMAGES]
    assert np.std(outputs) > 0.01
    for image, expected in zip(IMAGES, outputs, strict=True):
        np.testing.assert_allclose(run(made, image), expected, atol=1e-3)
    assert len(norm_inputs(made)) == norms
    for value in norm_inputs(made):
        far, near = (run(one, IMAGES[0], value) for one in (model, made))
        widest = np.ptp(far, (1, 2)).max() / 2
        np.testing.assert_allclose(near.max((1, 2)), widest, rtol=1e-3)
        np.testing.assert_allclose(near.min((1, 2)), -widest, rtol=1e-3)


def test_a_channel_that_shows_nothing_is_not_blown_up() -> None:
    network = used("s2d-8x2-nostd-in1")
    with torch.no_grad():
        network.blocks[0].conv1.weight[2] = 0
        network.blocks[0].conv1.weight[3] *= 1e-6
        network.blocks[1].conv1.weight[:] = 0
    model = export_graph(network, (64, 64)).model
    made = spread(model, IMAGES)
    for image in IMAGES:
        np.testing.assert_allclose(run(made, image), run(model, image), atol=1e-3)
    _, first, *_ = (node for node in made.graph.node if node.op_type == "Conv")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    assert all(np.isfinite(values).all() for values in weights.values())
    np.testing.assert_allclose(
        weights[first.input[1]][3], LIMIT * network.blocks[0].conv1.weight[3].detach(), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["s2d-8x2-plain", "resnet-4x1-bn"])
def test_without_instance_norm_nothing_changes(name: str) -> None:
    model = graph_of(name, IMAGES).model
    assert spread(model, IMAGES) == model


def test_what_is_read_elsewhere_too_is_left_alone() -> None:
    model = graph_of("s2d-8x2-nostd-in1", IMAGES).model
    value = norm_inputs(model)[-1]
    model.graph.output.append(onnx.ValueInfoProto(name=value))
    made = spread(model, IMAGES)
    node, before = (next(one for one in m.graph.node if value in one.output) for m in (made, model))
    assert node == before


def test_an_engine_that_rounds_ahead_of_norms_loses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("s2d-8x2-h4-nostd-in1-tanh", IMAGES)
    calibration = Calibration(IMAGES, ("a/1", "a/2", "a/3"), 0)

    def error() -> float:
        model = quantise(graph, calibration, (), quantizer="ort", saturation_safe=False)
        return float(np.mean([(run(model, image) - run(graph.model, image)) ** 2 for image in IMAGES]))

    with_it = error()
    monkeypatch.setattr("sccg_export.unsigned_qdq.spread", lambda model, _: model)
    assert with_it < 0.7 * error()
