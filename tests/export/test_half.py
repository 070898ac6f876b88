"""FP16 graphs: what computes in half precision, what must not, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from small_models import TEACHER, fresh, head

from sccg_export.graph import export_graph
from sccg_export.tensorrt_rtx_target import to_half
from sccg_runtime.intensity import FloatArray

only = pytest.mark.parametrize
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def run(model: onnx.ModelProto, image: FloatArray) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output: FloatArray = session.run(None, {"input": image[None]})[0][0]
    return output


@only("name", ["s2d-16x2", "s2d-16x2-plain", "resnet-8x1-bn", "resnet-8x1-in"])
def test_every_convolution_computes_in_fp16_on_float32_inputs_and_outputs(name: str) -> None:
    graph = export_graph(fresh(TEACHER if name == "resnet-8x1-in" else name), (64, 64))
    before = graph.to_bytes()
    half = to_half(graph)
    assert graph.to_bytes() == before, "the float32 graph is not touched"
    found = types(half)
    assert found["input"] == found["output"] == FLOAT
    convolutions = [node for node in half.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) >= 7
    assert {found[name] for node in convolutions for name in (*node.input, *node.output)} == {HALF}
    for size in ((64, 64), (96, 160)):
        image = head(*size)
        difference = np.abs(run(half, image) - run(graph.model, image)).max()
        assert 0 < difference < 5e-3


def test_instance_norm_stays_in_float32() -> None:
    half = to_half(export_graph(fresh(TEACHER), (64, 64)))
    found = types(half)
    norms = [node for node in half.graph.node if node.op_type == "InstanceNormalization"]
    assert len(norms) == 7
    assert {found[name] for node in norms for name in (*node.input, *node.output)} == {FLOAT}


def test_standardisation_and_means_stay_in_float32() -> None:
    graph = export_graph(fresh("s2d-16x2"), (64, 64))
    half = to_half(graph)
    found = types(half)
    stem = [node for node in half.graph.node if node.op_type in ("Sqrt", "Reciprocal")]
    assert [node.op_type for node in stem] == ["Sqrt", "Reciprocal"]
    assert {found[name] for node in stem for name in (*node.input, *node.output)} == {FLOAT}
    means = [node for node in half.graph.node if node.op_type == "ReduceMean"]
    assert len(means) == 4, "two of the slice, one for each FiLM"
    assert {found[name] for node in means for name in (node.input[0], node.output[0])} == {FLOAT}
