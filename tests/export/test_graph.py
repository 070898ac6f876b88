"""The ONNX graph is the PyTorch network, at any size."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from small_models import fresh, head, run_torch

from sccg_export import graph as graph_module
from sccg_export.graph import INPUT, OPSET, OUTPUT, Graph, export_graph
from sccg_export.openvino_target import float32_files
from sccg_runtime.engine import open_engine
from sccg_runtime.errors import RefusedError
from sccg_runtime.intensity import FloatArray

NETWORKS = ("resnet-8x2-bn", "resnet-8x2-in", "s2d-8x3", "s2d-8x3-plain", "s2d-8x3-in")
SIZES = ((64, 64), (96, 128), (32, 160))
# Every option of an s2d name, in five networks.
OPTIONS = (
    *("s2d-4x2-f8-u12-dw7", "s2d-4x2-f2-branch-k5-nostd", "s2d-4x3-u12-branch-k7-nodil-notail"),
    *("s2d-4x2-branch-dw3-nofilm-notail", "s2d-4x2-u12-branch-dw5-in", "s2d-4x2-g2-nostd-in1"),
)


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, Graph]:
    network = fresh(request.param)
    return network, export_graph(network, (64, 64))


def run_ort(graph: Graph, image: FloatArray) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    output: FloatArray = session.run([OUTPUT], {INPUT: image[None]})[0][0]
    return output


def test_onnx_gives_what_pytorch_gives_at_other_sizes_than_it_was_traced_at(
    traced: tuple[torch.nn.Module, Graph],
) -> None:
    network, graph = traced
    for rows, columns in SIZES:
        image = head(rows, columns)
        expected = run_torch(network, image)
        assert np.ptp(expected) > 0.01, "a constant output would prove nothing"
        np.testing.assert_allclose(run_ort(graph, image), expected, atol=2e-4)


def test_openvino_in_float32_gives_what_pytorch_gives_at_other_sizes(traced: tuple[torch.nn.Module, Graph]) -> None:
    network, graph = traced
    for size in SIZES:
        image = head(*size)
        session = open_engine(float32_files(graph, size, "engine"), size, 1)
        np.testing.assert_allclose(session(image), run_torch(network, image), atol=1e-3)
        assert set(session.description.precision_ran) == {"fp32"}


@pytest.mark.parametrize("name", OPTIONS)
def test_students_of_every_form_run_at_sizes_of_the_clinic_that_they_were_not_traced_at(name: str) -> None:
    network = fresh(name)
    graph = export_graph(network, (64, 64))
    for side in (256, 320, 512):
        image = head(side, side)
        expected = run_torch(network, image)
        assert np.ptp(expected) > 0.01, "a constant output would prove nothing"
        np.testing.assert_allclose(run_ort(graph, image), expected, atol=2e-4)
        session = open_engine(float32_files(graph, (side, side), "engine"), (side, side), 1)
        np.testing.assert_allclose(session(image), expected, atol=1e-3)
        assert set(session.description.precision_ran) == {"fp32"}


def test_no_batch_normalisation_is_left_and_the_opset_is_the_stated_one(traced: tuple[torch.nn.Module, Graph]) -> None:
    _, graph = traced
    assert "BatchNormalization" not in {node.op_type for node in graph.model.graph.node}
    assert graph.opset == OPSET


def test_weights_are_inside_and_height_and_width_are_free(traced: tuple[torch.nn.Module, Graph]) -> None:
    _, graph = traced
    assert all(not weight.external_data for weight in graph.model.graph.initializer)
    for value in (graph.model.graph.input[0], graph.model.graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        assert [dims[0].dim_value, dims[1].dim_value] == [1, 1]
        assert [dims[2].dim_param, dims[3].dim_param] == ["height", "width"]


def test_export_leaves_the_network_as_it_was() -> None:
    network = fresh("resnet-8x2-bn")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_graph(network, (32, 32))
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_graph_that_differs_from_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = graph_module.onnx.load_from_string

    def spoiled(content: bytes) -> object:
        model = loaded(content)
        weight = next(one for one in model.graph.initializer if len(one.dims) == 4)
        values = np.array(graph_module.onnx.numpy_helper.to_array(weight))
        weight.CopyFrom(graph_module.onnx.numpy_helper.from_array(values * 1.1, weight.name))
        return model

    monkeypatch.setattr(graph_module.onnx, "load_from_string", spoiled)
    with pytest.raises(RefusedError, match="differs from PyTorch by up to"):
        export_graph(fresh("s2d-8x3-plain"), (64, 64))


def test_a_network_that_gives_nan_is_refused() -> None:
    network = fresh("resnet-8x2-in")
    next(iter(network.parameters())).data.fill_(float("nan"))
    with pytest.raises(RefusedError, match="differs from PyTorch by up to nan"):
        export_graph(network, (32, 32))
