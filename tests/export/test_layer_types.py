"""Types of a built engine, from JSON in the form of TensorRT's inspector that the tests write themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sccg_export.layer_types import check_types, engine_types
from sccg_runtime.errors import RefusedError

only = pytest.mark.parametrize


def layer(kind: str, dtype: str, name: str = "", **more: Any) -> dict[str, Any]:
    """A layer as the inspector describes it."""
    tensor = {"Name": "t", "Dimensions": [1, 8, 64, 64], "Format/Datatype": dtype}
    return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], **more}


def engine(*layers: dict[str, Any] | str) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["input", "output0"]})


HALF_ENGINE = (
    layer("Reformat", "Float", "Reformatting CopyNode for Input Tensor 0 to [CONVOLUTION]-[conv2d]"),
    layer("CaskConvolution", "Half", "[CONVOLUTION]-[aten_ops.convolution.default]-[conv2d] + [RELU]-[relu]"),
    layer("kgen", "Half", "__myl_Relu_myl0_2", TacticName="sm80_xmma_fprop_implicit_gemm_f16f16_f16f32"),
    layer("CaskDeconvolutionV2", "Channel major FP16 format where channel % 8 == 0", "up"),
    layer("Reduce", "Float", "[REDUCE]-[aten_ops.mean.dim]-[mean]"),
    layer("Normalization", "Float", "[NORMALIZATION]-[aten_ops.native_group_norm.default]-[norm]"),
)


def test_half_convolutions_are_counted_fused_ones_too_and_copies_are_not() -> None:
    ran, layers = engine_types(engine(*HALF_ENGINE))
    assert ran == {"fp16": 3}
    assert layers["CASKCONVOLUTION HALF"] == 1
    assert layers["NORMALIZATION FLOAT"] == layers["REDUCE FLOAT"] == 1
    check_types("fp16", ran, layers)


@only("dtype", ["Float", "Row major linear FP32"])
def test_one_float_convolution_in_an_fp16_engine_is_refused(dtype: str) -> None:
    ran, layers = engine_types(engine(*HALF_ENGINE, layer("CaskConvolution", dtype, "last")))
    assert ran == {"fp16": 3, "fp32": 1}
    with pytest.raises(RefusedError, match="fp16 was asked for, but TensorRT's network has convolutions of 3 fp16, 1"):
        check_types("fp16", ran, layers)


@only("kind", ["Normalization", "Reduce"])
def test_a_norm_or_mean_in_fp16_is_refused(kind: str) -> None:
    found = engine_types(engine(*HALF_ENGINE, layer(kind, "Half", "norm")))
    with pytest.raises(RefusedError, match=f"must stay in float32, but TensorRT's network has {kind.upper()} HALF"):
        check_types("fp16", *found)


def test_bfloat16_is_not_taken_for_float32() -> None:
    ran, layers = engine_types(engine(layer("CaskConvolution", "BFloat16")))
    assert ran == {"bf16": 1}
    with pytest.raises(RefusedError, match="fp32 was asked for"):
        check_types("fp32", ran, layers)


def test_the_type_of_a_layer_without_inputs_is_its_outputs() -> None:
    made = layer("Constant", "Half", "convolution weights") | {"Inputs": []}
    assert engine_types(engine(made)) == ({}, {"CONSTANT HALF": 1})


def test_an_engine_without_convolutions_is_refused() -> None:
    with pytest.raises(RefusedError, match="convolutions of none"):
        check_types("fp16", *engine_types(engine(layer("kgen", "Half", "__myl_Add"))))


@only("text", [engine("[CONVOLUTION]-[conv2d]", "relu"), "{}", "no JSON", "[1]", '{"Layers": [{"LayerType": "x"}]}'])
def test_an_inspector_that_tells_no_types_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="does not tell the types"):
        engine_types(text)
