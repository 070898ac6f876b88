"""What the targets really make: quantised where they say so, float where they say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_models import fresh, head, run_torch, without_teacher_hash

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.export import export
from sccg_export.gate import DriftBudget
from sccg_export.graph import export_graph
from sccg_export.request import DriftRefusedError, ExportRequest, ExportResult
from sccg_export.targets import load_target
from sccg_export.unsigned_qdq import QUANTISED_OPS
from sccg_runtime.engine import cpu_capabilities, cpu_properties, import_openvino, open_session
from sccg_runtime.errors import InputError, RefusedError
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.networks.build import fold_for_export

Exported = tuple[ExportRequest, ExportResult, Path]
only = pytest.mark.parametrize
has_bf16 = pytest.mark.skipif("BF16" not in cpu_capabilities(), reason="this CPU has no BF16")


def compiled(result: ExportResult) -> dict[str, str]:
    """Convolutions of the compiled OpenVINO model by their ONNX node's name: precision that they run in."""
    openvino = import_openvino()
    members = result.bundle.members
    model = openvino.Core().read_model(members["model.xml"], members["model.bin"])
    properties = cpu_properties("int8", 1, result.bundle.contract.precision_ran)
    runtime = openvino.Core().compile_model(model, "CPU", properties).get_runtime_model()
    found: dict[str, str] = {}
    for node in runtime.get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in ("Convolution", "Deconvolution"):
            for name in info["originalLayersNames"].astype(str).split(","):
                found[name.removesuffix("/WithoutBiases")] = info["runtimePrecision"].astype(str)
    return found


@only("exported", ["openvino-int8"], indirect=True)
def test_openvino_int8_runs_convolutions_in_int8_and_names_those_it_left(exported: Exported) -> None:
    _, result, _ = exported
    ran = result.bundle.contract.precision_ran
    assert ran is not None
    assert ran["int8"] >= 4
    left = result.bundle.contract.drift["float_layers"]
    name, kernels = ("bf16", "bf16") if "BF16" in cpu_capabilities() else ("fp32", "f32")
    assert ran == {"int8": ran["int8"], name: len(left)}
    precisions = compiled(result)
    assert {precisions[name] for name in left} == {kernels}
    assert sum(value in ("u8", "i8") for name, value in precisions.items() if name not in left) >= ran["int8"]


@only("exported", ["openvino-int8"], indirect=True)
def test_the_last_convolution_and_the_picture_after_it_are_not_rounded(exported: Exported) -> None:
    _, result, _ = exported
    members = result.bundle.members
    nodes = import_openvino().Core().read_model(members["model.xml"], members["model.bin"]).get_ordered_ops()
    last = max(place for place, node in enumerate(nodes) if node.get_type_name() == "Convolution")
    assert nodes[last].input_value(0).get_node().get_type_name() != "FakeQuantize"
    after = [node.get_type_name() for node in nodes[last:]]
    assert "DepthToSpace" in after
    assert "FakeQuantize" not in after


def test_float_layers_of_a_reflecting_teacher_are_those_that_really_run_in_float(
    request_for: Callable[..., ExportRequest], teacher: Checkpoint, tmp_path: Path
) -> None:
    wanted = replace(request_for(), checkpoint=teacher, record=without_teacher_hash(teacher))
    made = export(wanted, tmp_path / "teacher.sccg").bundle.contract
    assert made.precision_ran is not None
    (rest,) = set(made.precision_ran) - {"int8"}
    assert made.precision_ran["int8"] > made.precision_ran[rest] == len(made.drift["float_layers"])


@pytest.fixture(scope="module", params=["resnet-4x1-in", "s2d-16x1-in", "s2d-16x2-h8-nostd-in1-tanh"])
def normalising(request: pytest.FixtureRequest) -> tuple[Built, list[Any]]:
    """An untrained network with instance norm as INT8 OpenVINO engine, and its operations."""
    graph = export_graph(fresh(request.param), (32, 32))
    calibration = Calibration([np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 32, 32)], ("a",), 0)
    made = load_target("openvino", "int8").build(graph, "int8", (32, 32), calibration)
    model = import_openvino().Core().read_model(made.members["model.xml"], made.members["model.bin"])
    return made, model.get_ordered_ops()


def test_openvino_normalises_in_float_between_convolutions_in_int8(normalising: tuple[Built, list[Any]]) -> None:
    made, nodes = normalising
    norms = [node for node in nodes if node.get_type_name() == "MVN"]
    assert len(norms) >= 3
    assert "FakeQuantize" not in {norm.input_value(0).get_node().get_type_name() for norm in norms}
    assert len(made.int8_layers) >= 2


def test_openvino_sums_what_a_norm_gives_unrounded(normalising: tuple[Built, list[Any]]) -> None:
    _, nodes = normalising

    def behind(node: Any) -> set[str]:
        """A node's operation and, where it is a rounding, a product or a sum with what is no map, those before it."""
        maps = [value for value in node.input_values() if list(value.get_shape())[2:] > [1, 1]]
        if node.get_type_name() not in ("FakeQuantize", "Multiply", "Add") or len(maps) != 1:
            return {node.get_type_name()}
        return {node.get_type_name(), *behind(maps[0].get_node())}

    sums = [node for node in nodes if node.get_type_name() == "Add"]
    summed = [behind(value.get_node()) for node in sums for value in node.input_values()]
    assert not any({"MVN", "FakeQuantize"} <= kinds for kinds in summed)
    assert any("FakeQuantize" in kinds for kinds in summed), "what a block adds to is in eight bits"
    assert any("MVN" in kinds for kinds in summed)


@pytest.mark.parametrize("normalising", ["s2d-16x2-h8-nostd-in1-tanh"], indirect=True)
def test_openvino_computes_both_steps_of_a_stem_in_float(normalising: tuple[Built, list[Any]]) -> None:
    made, nodes = normalising
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    read = [node.input_value(0).get_node().get_type_name() for node in convolutions]
    assert [max(node.get_strides()) for node in convolutions[:3]] == [2, 2, 1]
    assert "FakeQuantize" not in read[:2]
    assert read[2] == "FakeQuantize"
    assert len(made.float_layers) == 3, "and the last"


@only("exported", ["openvino-int8"], indirect=True)
def test_standardisation_and_stem_stay_in_float(exported: Exported) -> None:
    _, result, _ = exported
    members = result.bundle.members
    model = import_openvino().Core().read_model(members["model.xml"], members["model.bin"])
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    waiting, seen = [first], set()
    while waiting:
        node = waiting.pop()
        seen.add(node.get_type_name())
        waiting += [value.get_node() for value in node.input_values()]
    assert "ReduceMean" in seen, "the mean of the slice is computed before the stem"
    assert "FakeQuantize" not in seen
    assert "FakeQuantize" in {node.get_type_name() for node in model.get_ordered_ops()}


@only("exported", ["openvino-int8", "ort-int8"], indirect=True)
def test_int8_follows_brightness_and_contrast_of_the_input_like_fp32(exported: Exported) -> None:
    wanted, result, _ = exported
    session = open_session(result.bundle, threads=1)
    image = head(64, 64)
    for changed in (image, np.float32(0.5) * image - np.float32(0.4)):
        expected = run_torch(wanted.checkpoint.generator, changed)
        assert float(np.mean((session(changed) - expected) ** 2)) < 1e-3


@only("exported", ["openvino-fp32", "ort-fp32"], indirect=True)
def test_fp32_engines_are_the_network(exported: Exported) -> None:
    wanted, result, _ = exported
    assert result.bundle.contract.precision_ran == {"fp32": 13}
    assert "float_layers" not in result.bundle.contract.drift
    session = open_session(result.bundle, threads=1)
    for seed in range(3):
        image = head(64, 64, seed)
        np.testing.assert_allclose(session(image), run_torch(wanted.checkpoint.generator, image), atol=1e-3)


@only("exported", ["openvino-fp16"], indirect=True)
def test_openvino_fp16_is_the_network_with_rounded_weights_computed_in_float32(exported: Exported) -> None:
    wanted, result, _ = exported
    assert result.bundle.contract.precision_ran == {"fp32": 13}
    rounded = fold_for_export(wanted.checkpoint.generator)
    for weight in rounded.parameters():
        weight.data = weight.data.half().float()
    session = open_session(result.bundle, threads=1)
    image = head(64, 64)
    np.testing.assert_allclose(session(image), run_torch(rounded, image), atol=1e-5)
    assert np.abs(session(image) - run_torch(wanted.checkpoint.generator, image)).max() > 5e-5, "weights were rounded"


@only("exported", ["openvino-fp16"], indirect=True)
def test_openvino_fp16_stores_half_the_bytes(
    exported: Exported, request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    _, result, _ = exported
    said: list[str] = []
    float32 = export(request_for("openvino", "fp32"), tmp_path / "fp32.sccg", said.append).bundle
    ratio = len(result.bundle.members["model.bin"]) / len(float32.members["model.bin"])
    assert 0.4 < ratio < 0.6
    assert not any("FP16" in line for line in said)
    export(request_for("openvino", "fp16"), tmp_path / "fp16.sccg", said.append)
    assert any("arithmetic stays float32" in line for line in said)


@has_bf16
def test_openvino_bf16_computes_in_bf16_and_is_judged_by_the_gate(
    request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    made = export(request_for("openvino", "bf16"), tmp_path / "bf16.sccg").bundle.contract
    assert made.precision_ran == {"bf16": 13}
    assert 25 < made.drift["engine_drift"]["engine_to_fp32_psnr_db"] < 80, "bf16 differs from float32"
    strict = DriftBudget(min_mean_psnr_db=90)
    with pytest.raises(DriftRefusedError, match=r"below 90.*ask for --fp16, --fp32 or --int8"):
        export(request_for("openvino", "bf16", budget=strict), tmp_path / "strict.sccg")
    assert not (tmp_path / "strict.sccg").exists()


@has_bf16
@only(("refused", "rest", "put_back"), [(1, "fp32", False), (2, "bf16", True)])
def test_float32_takes_the_place_of_bf16_beside_int8_only_where_that_satisfies_the_gate(
    request_for: Callable[..., ExportRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: int,
    rest: str,
    put_back: bool,
) -> None:
    judged: list[str] = []

    def refuse_the_first(*_: object) -> None:
        judged.append("once")
        if len(judged) <= refused:
            raise RefusedError("too far")

    monkeypatch.setattr("sccg_export.workshop.check_drift", refuse_the_first)
    said: list[str] = []
    made = export(request_for(), tmp_path / "a.sccg", said.append).bundle
    assert made.contract.precision_ran is not None
    assert set(made.contract.precision_ran) == {rest, "int8"}
    assert ("put_back" in made.contract.drift) is put_back
    assert "not yet: too far: trying float32 instead of bf16 beside int8" in said
    assert open_session(made).description.precision_ran == made.contract.precision_ran


@has_bf16
def test_bf16_that_runs_in_another_precision_is_refused(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sccg_runtime.engine.cpu_properties", lambda _, threads, __: cpu_properties("fp32", threads))
    with pytest.raises(RefusedError, match="bf16 was asked for, but no convolution runs in bf16"):
        export(request_for("openvino", "bf16"), tmp_path / "bf16.sccg")
    assert list(tmp_path.iterdir()) == []


def test_bf16_is_refused_before_any_work_where_the_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sccg_export.requirements.cpu_capabilities", lambda: frozenset({"FP32", "INT8"}))
    with pytest.raises(InputError, match=r"this CPU computes no bf16 .*lack BF16.*ask for --fp32"):
        load_target("openvino", "bf16")
    load_target("openvino", "fp16")


@only("exported", ["ort-int8"], indirect=True)
def test_ort_int8_is_qdq_with_unsigned_activations_and_signed_weights_per_channel(exported: Exported) -> None:
    _, result, _ = exported
    model = onnx.load_from_string(result.bundle.members["model.onnx"])
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    checked = 0
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        before = [producer.get(name) for name in node.input[:2]]
        if any(one is None or one.op_type != "DequantizeLinear" for one in before):
            continue
        activation, weight = (one for one in before if one is not None)
        assert weights[activation.input[2]].dtype == np.uint8
        values, scales = weights[weight.input[0]], weights[weight.input[1]]
        assert values.dtype == np.int8
        assert scales.shape == (values.shape[0],), "one scale per output channel"
        checked += 1
    left = result.bundle.contract.drift["float_layers"]
    assert result.bundle.contract.precision_ran == {"fp32": len(left), "int8": checked}
    assert checked >= 5, "all convolutions of the blocks, and more"


@only("exported", ["ort-int8"], indirect=True)
def test_ort_keeps_first_and_last_convolution_and_what_works_on_channel_means_in_float(exported: Exported) -> None:
    _, result, _ = exported
    model = onnx.load_from_string(result.bundle.members["model.onnx"])
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    left = result.bundle.contract.drift["float_layers"]
    assert {convolutions[0], convolutions[-1]} <= set(left) < set(convolutions)
    producer = {name: node for node in model.graph.node for name in node.output}
    means = [node for node in model.graph.node if node.op_type in ("ReduceMean", "GlobalAveragePool")]
    assert means
    for name in left[1:-1]:  # FiLM: every path from these ends at a mean, not at a quantised map
        node = next(one for one in model.graph.node if one.name == name)
        while node.op_type not in ("ReduceMean", "GlobalAveragePool"):
            assert node.op_type in ("Conv", "Relu", "Gemm", "Reshape"), node.op_type
            node = producer[node.input[0]]


@only("exported", ["ort-int8"], indirect=True)
def test_ort_wraps_only_the_allowed_operations(exported: Exported) -> None:
    _, result, _ = exported
    model = onnx.load_from_string(result.bundle.members["model.onnx"])
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producer = {name: node for node in model.graph.node for name in node.output}
    stretches = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert stretches
    for node in stretches:
        after = {reader.op_type for reader in readers.get(node.output[0], [])}
        source = producer.get(node.input[0])  # None: a stored weight
        before = None if source is None else producer.get(source.input[0])
        made_by = "input" if before is None else before.op_type
        assert after & set(QUANTISED_OPS) or made_by in QUANTISED_OPS, (node.name, after, made_by)


def test_ort_counts_are_honest_where_some_convolutions_stay_in_float(
    request_for: Callable[..., ExportRequest], teacher: Checkpoint, tmp_path: Path
) -> None:
    wanted = replace(request_for("ort"), checkpoint=teacher, record=without_teacher_hash(teacher))
    made = export(wanted, tmp_path / "teacher.sccg").bundle
    model = onnx.load_from_string(made.members["model.onnx"])
    transposed = [node.name for node in model.graph.node if node.op_type == "ConvTranspose"]
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert len(transposed) == 2
    assert made.contract.drift["float_layers"] == [convolutions[0], *transposed, convolutions[-1]]
    assert made.contract.precision_ran == {"fp32": 4, "int8": len(convolutions) - 2}


def test_unknown_target_and_precision_are_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="'tensorflow' is none of openvino, ort"):
        load_target("tensorflow", "int8")
    with pytest.raises(InputError, match="ort has no bf16; it has fp32, int8"):
        load_target("ort", "bf16")
    with pytest.raises(InputError, match=r"--gpu-arch 8\.9: it is for --target tensorrt-rtx only"):
        load_target("openvino", "fp32", "8.9")


@only("target", ["openvino", "ort"])
def test_int8_without_slices_is_refused(target: str, student: Checkpoint) -> None:
    module = load_target(target, "int8")
    graph = export_graph(student.generator, (64, 64))
    with pytest.raises(InputError, match="int8 needs calibration slices"):
        module.build(graph, "int8", (64, 64), None)


@only("target", ["openvino", "ort"])
def test_nothing_is_printed(
    target: str, request_for: Callable[..., ExportRequest], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(request_for(target), tmp_path / "quiet.sccg")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "━" not in printed.err, "no progress bar where there is no terminal"


def test_int8_that_quantised_nothing_is_refused(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sccg_export.openvino_target._quantise", lambda model, *_: model)
    out = tmp_path / "none.sccg"
    with pytest.raises(RefusedError, match="no convolution runs in int8"):
        export(request_for(), out)
    assert list(tmp_path.iterdir()) == []
