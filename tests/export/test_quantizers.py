"""INT8 by either quantiser: what is folded, who takes which, what the contract says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import TEACHER, fresh

from sccg_export import openvino_target, requirements, symmetric_qdq, unsigned_qdq
from sccg_export.calibration import Calibration
from sccg_export.export import export
from sccg_export.graph import export_graph
from sccg_export.inc_qdq import fold_weights, halve_weights
from sccg_export.qdq import stem
from sccg_export.request import ExportRequest
from sccg_export.requirements import installed
from sccg_export.runnables import BundleRunnable
from sccg_export.targets import load_target, parse_quantizer
from sccg_export.unsigned_qdq import integer_convolutions, layers, quantise
from sccg_runtime.bundle import DRIFT_MEMBER
from sccg_runtime.engine import cpu_capabilities
from sccg_runtime.errors import InputError, RefusedError
from sccg_teacher_student.networks.spec import student_spec

only = pytest.mark.parametrize
REST = "bf16" if "BF16" in cpu_capabilities() else "fp32"  # what OpenVINO computes in beside int8
Make = Callable[..., ExportRequest]
needs_inc = pytest.mark.skipif(
    installed("neural-compressor-pt") is None, reason="neural-compressor-pt is not installed: pip install '.[inc]'"
)


def weight_behind_quantize_linear() -> onnx.ModelProto:
    """A convolution whose float weight passes QuantizeLinear (per output channel), Clip and DequantizeLinear."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2, 3, 3)).astype(np.float32)
    weight[0] *= 10  # another scale per channel
    constants = {
        "weight": weight,
        "scale": (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32),
        "zero": np.zeros(3, np.int8),
        "low": np.array(-127, np.int8),
        "high": np.array(127, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["weight", "scale", "zero"], ["q"], "q", axis=0),
        helper.make_node("Clip", ["q", "low", "high"], ["clipped"], "clip"),
        helper.make_node("DequantizeLinear", ["clipped", "scale", "zero"], ["dq"], "dq", axis=0),
        helper.make_node("Conv", ["input", "dq"], ["output"], "conv", pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "weights",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_weights_behind_quantize_linear_become_int8_initialisers_and_nothing_else_changes() -> None:
    model = weight_behind_quantize_linear()
    before = model.SerializeToString()
    folded = fold_weights(model)
    assert [node.op_type for node in folded.graph.node] == ["DequantizeLinear", "Conv"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in folded.graph.initializer}
    assert set(stored) == {"clipped", "scale", "zero"}, "what nothing reads any more is gone"
    weight, scale = (
        numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == name))
        for name in ("weight", "scale")
    )
    expected = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    assert stored["clipped"].dtype == np.int8
    np.testing.assert_array_equal(stored["clipped"], expected)
    image = np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)
    outputs = [ReferenceEvaluator(one).run(None, {"input": image})[0] for one in (model, folded)]
    np.testing.assert_array_equal(*outputs)
    assert model.SerializeToString() == before, "the model that was given is not changed"


def test_seven_bit_weights_are_half_as_fine_and_mean_the_same() -> None:
    folded = fold_weights(weight_behind_quantize_linear())
    halved = halve_weights(folded)
    stored = [{t.name: numpy_helper.to_array(t) for t in one.graph.initializer} for one in (folded, halved)]
    assert stored[1]["clipped"].dtype == np.int8
    assert np.abs(stored[0]["clipped"].astype(int)).max() == 127
    assert -64 <= stored[1]["clipped"].min() <= stored[1]["clipped"].max() <= 63
    eight, seven = (one["clipped"] * one["scale"][:, None, None, None] for one in stored)
    assert np.abs(eight - seven).max() <= stored[1]["scale"].max()


@needs_inc
@only("target", ["ort", "openvino"])
def test_one_graph_by_the_compressor_serves_both_cpu_targets(target: str, request_for: Make, tmp_path: Path) -> None:
    path = tmp_path / "inc.sccg"
    bundle = export(request_for(target, "int8", quantizer="inc"), path).bundle
    made = bundle.contract
    named = f"inc {installed('neural-compressor-pt')}"
    assert made.drift["quantizer"] == named
    assert json.loads(bundle.members[DRIFT_MEMBER])["quantizer"] == named
    # in front of the last convolution the compressor rounds nothing, so ONNX Runtime has no integer kernel there
    assert made.precision_ran == ({REST: 8, "int8": 5} if target == "openvino" else {"fp32": 9, "int8": 4})
    assert made.drift["engine_drift"]["engine_to_fp32_psnr_db"] > 25
    runnable = BundleRunnable("inc", path)
    runnable.open((64, 64), 1)
    assert runnable.describe()["quantizer"] == named


@needs_inc
def test_the_compressors_graph_has_int8_weights_quantised_sums_and_the_layers_that_ort_leaves_in_float(
    request_for: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = request_for()
    calibration = wanted.calibration
    assert isinstance(calibration, Calibration)
    graph = export_graph(wanted.checkpoint.generator, (64, 64))
    model = quantise(graph, calibration, (), quantizer="inc", saturation_safe=False)
    other = quantise(graph, calibration, (), quantizer="ort", saturation_safe=False)
    assert capfd.readouterr() == ("", ""), "nothing is printed"
    assert [sorted(part) for part in layers(model)] == [sorted(part) for part in layers(other)]
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    convolutions, _, sums = layers(model)
    assert len(sums) == 2
    for node in model.graph.node:
        if node.name in convolutions:
            assert stored[producer[node.input[1]].input[0]] == TensorProto.INT8
        if node.name in sums:
            assert all(producer[name].op_type == "DequantizeLinear" for name in node.input)
    kept = quantise(graph, calibration, (convolutions[0], sums[0]), quantizer="inc", saturation_safe=True)
    assert layers(kept)[0] == convolutions[1:]
    assert sums[0] not in layers(kept)[2]
    weights = [numpy_helper.to_array(one) for one in kept.graph.initializer if one.data_type == TensorProto.INT8]
    assert max(np.abs(one.astype(int)).max() for one in weights) in (63, 64)
    with pytest.raises(InputError, match="no operation named nowhere"):
        quantise(graph, calibration, ("nowhere",), quantizer="inc", saturation_safe=False)


def kernels_of_onnx_runtime(model: onnx.ModelProto, folder: Path) -> int:
    """Integer convolutions in the graph that ONNX Runtime itself made of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = onnx.load(folder / "optimised.onnx").graph.node
    return sum(node.op_type in ("QLinearConv", "ConvInteger") for node in found)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("s2d-16x2-h16-nostd-in1-tanh", [2, 2]),
        ("s2d-16x2-h8-nostd", [2, 2]),
        ("s2d-16x2-s8-nostd-in1-tanh", [1]),
        ("s2d-16x2-nostd-in1", [4]),
        ("s2d-16x2-u24-nostd-in", [4]),
        ("s2d-16x2-branch-nostd-in", [4]),
        ("resnet-4x1-in", [1]),
    ],
)
def test_a_stem_of_two_steps_is_one_that_nothing_branches_off(name: str, strides: list[int]) -> None:
    graph = export_graph(fresh(student_spec(name)), (32, 32))
    nodes = {node.name: node for node in graph.model.graph.node}
    found = stem(graph.model)
    assert [one.ints[0] for each in found for one in nodes[each].attribute if one.name == "strides"] == strides
    assert set(found) <= set(symmetric_qdq.always_float(graph.model))
    assert set(found) <= set(unsigned_qdq.always_float(graph.model))
    second = [node.name for node in graph.model.graph.node if node.op_type == "Conv"][1]
    image = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    built = openvino_target.build(graph, "int8", (32, 32), Calibration([image], ("a/0",), 0))
    assert (second in built.float_layers) == (len(strides) == 2)


@pytest.mark.parametrize("quantizer", ["ort", pytest.param("inc", marks=needs_inc)])
@pytest.mark.parametrize(
    "name", ["s2d-16x2-h16-nostd-in", "s2d-16x2-h16-nostd-in1-tanh", "s2d-16x2-s8-nostd-in1", "s2d-16x2-in"]
)
def test_stem_tail_and_sums_with_a_norm_stay_in_float_under_the_names_of_the_graph(
    name: str, quantizer: Any, tmp_path: Path
) -> None:
    """Convolutions without bias have numbers for names, which are others in the compressor's graph."""
    graph = export_graph(fresh(student_spec(name)), (32, 32))
    image = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    calibration = Calibration([image], ("a/0",), 0)
    convolutions = [node.name for node in graph.model.graph.node if node.op_type == "Conv"]
    stem = 2 if "-h" in name else 1
    model = quantise(graph, calibration, (), quantizer=quantizer, saturation_safe=False)
    quantised, left, sums = layers(model)
    assert quantised == convolutions[stem:-1]
    assert left == [*convolutions[:stem], convolutions[-1]]
    assert len(sums) == (2 if "-in1" in name else 0)
    normed = {out for node in model.graph.node if node.op_type == "InstanceNormalization" for out in node.output}
    read = [one for node in model.graph.node if node.op_type == "Add" for one in node.input]
    assert len(normed & set(read)) == (0 if "-in1" in name else 2)
    blocks = quantised[2:] if "-s8" in name else quantised
    integer = quantised if quantizer == "ort" else blocks[1:-1:2] if "-in1" in name else []
    assert integer_convolutions(model) == integer
    assert kernels_of_onnx_runtime(model, tmp_path) == len(integer)
    kept = quantise(graph, calibration, (quantised[1],), quantizer=quantizer, saturation_safe=False)
    assert layers(kept)[0] == [one for one in quantised if one != quantised[1]]


@needs_inc
def test_what_onnx_runtime_would_compute_in_float_is_not_called_int8(request_for: Make, tmp_path: Path) -> None:
    """The compressor rounds nothing between a convolution and an instance norm."""
    spec = student_spec("s2d-16x2-in")
    student = replace(request_for().checkpoint, generator=fresh(spec), spec=spec)
    wanted = request_for("ort", "int8", quantizer="inc", checkpoint=student)
    with pytest.raises(RefusedError, match="int8 was asked for, but no convolution runs in int8"):
        export(wanted, tmp_path / "a.sccg")
    assert list(tmp_path.iterdir()) == []


@needs_inc
def test_the_compressor_leaves_norms_and_transposed_convolutions_of_a_teacher_in_float() -> None:
    graph = export_graph(fresh(TEACHER), (32, 32))
    image = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    model = quantise(graph, Calibration([image], ("a/0",), 0), (), quantizer="inc", saturation_safe=False)
    quantised, left, _ = layers(model)
    assert set(quantised) < {node.name for node in graph.model.graph.node}
    assert {node.name for node in model.graph.node if node.op_type == "ConvTranspose"} < set(left)
    dequantised = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert norms
    assert not any(name in dequantised for node in norms for name in node.input)


def test_openvino_takes_onnx_runtimes_graph_too(request_for: Make, tmp_path: Path) -> None:
    made = export(request_for("openvino", "int8", quantizer="ort"), tmp_path / "ort.sccg").bundle.contract
    assert made.drift["quantizer"] == f"ort {installed('onnxruntime')}"
    assert made.precision_ran == {REST: 8, "int8": 5}
    assert len(made.drift["float_layers"]) == 8


@only(
    ("target", "precision", "quantizer", "told"),
    [
        ("ort", "int8", "nncf", "--quantizer nncf: target ort takes ort, inc"),
        ("tensorrt-rtx", "int8", "ort", "target tensorrt-rtx has no choice of quantisers"),
        ("openvino", "fp32", "ort", "--quantizer ort is for --int8, not for fp32"),
    ],
)
def test_a_quantiser_that_does_not_serve_the_target_is_refused(
    target: str, precision: str, quantizer: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load_target(target, precision, quantizer=quantizer)  # type: ignore[arg-type]


def test_an_unknown_or_missing_quantiser_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--quantizer 'tflite' is none of nncf, ort, inc"):
        parse_quantizer("tflite")
    there = requirements.installed
    monkeypatch.setattr(requirements, "installed", lambda name: None if name == "neural-compressor-pt" else there(name))
    told = r"quantizer inc needs neural-compressor-pt, which is not installed: pip install '\.\[inc\]'"
    with pytest.raises(InputError, match=told):
        load_target("openvino", "int8", quantizer="inc")
    assert requirements.examine("openvino").quantizers["nncf"] is None
    assert requirements.examine("openvino").missing == (), "INT8 has another quantiser"
