"""Engines for RTX cards, built without one: types of the network, what the contract says, who refuses to run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from small_models import TEACHER, fresh, without_teacher_hash

from sccg_export.calibration import Calibration
from sccg_export.export import export
from sccg_export.gate import DriftBudget
from sccg_export.graph import export_graph
from sccg_export.qdq import convolutions as convolutions_of
from sccg_export.request import DriftRefusedError, ExportRequest
from sccg_export.runnables import BundleRunnable
from sccg_export.symmetric_qdq import quantise
from sccg_export.targets import load_target
from sccg_runtime.bundle import DRIFT_MEMBER, read_golden
from sccg_runtime.engine import open_session
from sccg_runtime.errors import InputError, MissingDependencyError, RefusedError
from sccg_teacher_student.checkpoint import Checkpoint

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed: pip install '.[rtx]'")

from sccg_export import tensorrt_rtx_target  # noqa: E402
from sccg_export.layer_types import check_types  # noqa: E402
from sccg_export.tensorrt_rtx_target import GPU_ARCHS, build, inspect, parse, to_half  # noqa: E402
from sccg_export.trt_session import open_engine, trt_logger  # noqa: E402

only = pytest.mark.parametrize
Make = Callable[..., ExportRequest]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="an NVIDIA GPU is here: drift is measured on it")


def typed(model: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """(convolutions by precision, layers by type) of TensorRT's network."""
    builder = trt.Builder(trt_logger("tensorrt-rtx"))
    return inspect(parse(trt, builder, model))


@no_gpu
@only(
    ("precision", "ran"),
    [("fp32", {"fp32": 13}), ("fp16", {"fp16": 13}), ("int8", {"fp32": 8, "int8": 5})],
)
def test_export_builds_an_engine_and_says_that_drift_is_the_graphs(
    precision: str, ran: dict[str, int], request_for: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    wanted = request_for("tensorrt-rtx", precision)
    bundle = export(wanted, tmp_path / "rtx.sccg", said.append).bundle
    made = bundle.contract
    assert (made.engine, made.engine_version) == ("TensorRT-RTX", trt.__version__)
    assert (made.precision_asked, made.precision_ran) == (precision, ran)
    assert made.drift_measured_on == "graph"
    assert any("no NVIDIA GPU here: drift is measured on the same graph" in line for line in said)
    built = made.drift["build"]
    assert built["gpu_arch"] == "8.6"
    assert built["engine_mib"] == len(bundle.members["model.engine"]) / 2**20 > 0.05
    assert built["build_seconds"] > 0
    assert json.loads(bundle.members[DRIFT_MEMBER])["build"] == built
    golden = read_golden(bundle)
    difference = np.abs(golden.engine_outputs - golden.fp32_outputs).max()
    assert difference < {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.5}[precision]
    if precision != "fp32":
        assert difference > 1e-5, "the graph that was run is the compressed one"
        assert made.drift["engine_drift"]["engine_to_fp32_psnr_db"] < 99
    left = made.drift.get("float_layers", [])
    assert len(left) == (ran["fp32"] if precision == "int8" else 0)


def stand(information: str | None) -> SimpleNamespace:
    """TensorRT-RTX on a card, whose inspector tells ``information``; None: the engine does not load."""
    inspector = SimpleNamespace(get_engine_information={"json": information}.__getitem__)
    engine = None if information is None else SimpleNamespace(create_engine_inspector=lambda: inspector)
    return SimpleNamespace(
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine),
    )


def test_on_its_card_an_engine_tells_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = export_graph(fresh("s2d-16x2"), (64, 64))
    layer = {"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Half"}], "Outputs": []}
    on_card = stand(json.dumps({"Layers": [layer, layer]}))
    real = tensorrt_rtx_target._inspected
    monkeypatch.setattr(tensorrt_rtx_target, "present_gpu_arch", lambda: "8.6")
    monkeypatch.setattr(tensorrt_rtx_target, "_inspected", lambda trt, engine: real(on_card, engine))
    detailed = build(graph, "fp16", graph.size, None)
    assert (detailed.measured_on, detailed.open) == ("engine", open_engine)
    assert detailed.details["engine_layers"] == {"CASKCONVOLUTION HALF": 2}
    other = build(graph, "fp16", graph.size, None, gpu_arch="8.9")
    assert other.measured_on == "graph"
    assert "engine_layers" not in other.details


def test_an_inspector_that_tells_names_only_stops_nothing_and_an_engine_that_does_not_load_does() -> None:
    told = tensorrt_rtx_target._inspected(stand(json.dumps({"Layers": ["a", "b"]})), b"engine")
    assert told == "TensorRT's engine inspector does not tell the types of the engine's layers"
    with pytest.raises(RefusedError, match="cannot load the engine"):
        tensorrt_rtx_target._inspected(stand(None), b"engine")


def test_fp16_networks_have_half_convolutions_and_float_norms() -> None:
    graph = export_graph(fresh(TEACHER), (64, 64))
    ran, layers = typed(to_half(graph))
    assert ran == {"fp16": 8}
    assert layers["CONVOLUTION HALF"] == 6
    assert layers["DECONVOLUTION HALF"] == 2
    assert layers["NORMALIZATION FLOAT"] == 7
    assert "NORMALIZATION HALF" not in layers
    ran, layers = typed(to_half(export_graph(fresh("s2d-16x2"), (64, 64))))
    assert set(ran) == {"fp16"}
    assert layers["REDUCE FLOAT"] == 4
    assert "REDUCE HALF" not in layers


def test_a_network_in_another_type_than_asked_is_refused() -> None:
    ran, layers = typed(export_graph(fresh("s2d-16x2-plain"), (64, 64)).model)
    check_types("fp32", ran, layers)
    with pytest.raises(RefusedError, match="fp16 was asked for, but TensorRT's network has convolutions of 7 fp32"):
        check_types("fp16", ran, layers)
    with pytest.raises(RefusedError, match="int8 was asked for"):
        check_types("int8", ran, layers)


def test_a_norm_in_fp16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sccg_export.typed_program.FLOAT_OPS", {})
    ran, layers = typed(to_half(export_graph(fresh(TEACHER), (64, 64))))
    with pytest.raises(RefusedError, match=r"norms and means must stay in float32.*NORMALIZATION HALF"):
        check_types("fp16", ran, layers)


def test_int8_is_symmetric_with_float_biases_and_leaves_first_last_and_film_in_float(
    student: Checkpoint, request_for: Make
) -> None:
    calibration = request_for().calibration
    assert isinstance(calibration, Calibration)
    graph = export_graph(student.generator, (64, 64))
    model = quantise(graph, calibration, ())
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    stretches = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(stretches) > 10
    for node in stretches:
        assert values[node.input[2]].dtype == np.int8
        assert not values[node.input[2]].any(), "zero points are 0"
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    _, left = convolutions_of(model)
    assert {convolutions[0], convolutions[-1]} < set(left)
    assert len(convolutions) - len(left) == 5, "two in each block and the one before the tail"
    more = quantise(graph, calibration, (convolutions[1],))
    assert set(convolutions_of(more)[1]) == {*left, convolutions[1]}


def test_an_int8_engine_over_its_budget_gets_layers_back_in_float_then_is_refused(
    request_for: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    wanted = request_for("tensorrt-rtx", "int8", budget=DriftBudget(min_mean_psnr_db=99))
    with pytest.raises(DriftRefusedError, match="below 99"):
        export(wanted, tmp_path / "rtx.sccg", said.append)
    assert sum("back in float" in line for line in said) > 1
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_with_instance_norm_builds_for_another_card(
    request_for: Make, teacher: Checkpoint, tmp_path: Path
) -> None:
    record = without_teacher_hash(teacher)
    wanted = replace(request_for("tensorrt-rtx", "fp16"), checkpoint=teacher, record=record, gpu_arch="12.0")
    made = export(wanted, tmp_path / "teacher.sccg").bundle.contract
    assert made.drift["build"]["gpu_arch"] == "12.0"
    assert made.drift["build"]["layers"]["NORMALIZATION FLOAT"] == 7
    assert made.precision_ran == {"fp16": 8}


def test_engines_differ_by_architecture_and_an_unknown_one_is_refused() -> None:
    graph = export_graph(fresh("s2d-16x2-plain"), (64, 64))
    made = {
        arch: build(graph, "fp32", (64, 64), None, gpu_arch=arch).members["model.engine"] for arch in ("8.6", "8.9")
    }
    assert made["8.6"] != made["8.9"]
    assert {"8.6", "8.9", "12.0"} <= set(GPU_ARCHS)
    with pytest.raises(InputError, match=r"--gpu-arch 9\.0: it is one of 7\.5, 8\.0, 8\.6"):
        load_target("tensorrt-rtx", "fp32", "9.0")


def test_int8_without_slices_is_refused() -> None:
    with pytest.raises(InputError, match="int8 needs calibration slices"):
        build(export_graph(fresh("s2d-16x2-plain"), (64, 64)), "int8", (64, 64), None)


@no_gpu
def test_neither_the_clinics_runtime_nor_bench_runs_it_here_and_both_say_why(request_for: Make, tmp_path: Path) -> None:
    path = tmp_path / "rtx.sccg"
    bundle = export(request_for("tensorrt-rtx", "fp32"), path).bundle
    with pytest.raises(MissingDependencyError, match="needs an NVIDIA GPU and cannot run here"):
        open_session(bundle)
    with pytest.raises(MissingDependencyError, match="it needs an NVIDIA GPU, its driver and a CUDA build of PyTorch"):
        BundleRunnable("rtx", path).open((64, 64), 1)


def test_nothing_is_printed(request_for: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(request_for("tensorrt-rtx", "int8"), tmp_path / "quiet.sccg")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU: the engine cannot be run")
@only("precision", ["fp32", "fp16", "int8"])
def test_on_a_card_drift_is_measured_on_the_engine(precision: str, request_for: Make, tmp_path: Path) -> None:
    arch = ".".join(map(str, torch.cuda.get_device_capability()))
    if arch not in GPU_ARCHS:
        pytest.skip(f"TensorRT-RTX builds no engine for SM {arch}")
    path = tmp_path / "rtx.sccg"
    bundle = export(request_for("tensorrt-rtx", precision, gpu_arch=arch), path).bundle
    assert bundle.contract.drift_measured_on == "engine"
    golden = read_golden(bundle)
    limits = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.5}
    assert 0 < np.abs(golden.engine_outputs - golden.fp32_outputs).max() < limits[precision]
    call = BundleRunnable("rtx", path).open((64, 64), 1)
    np.testing.assert_allclose(call(golden.inputs[0]), golden.engine_outputs[0], atol=1e-4)
    assert call(np.zeros((1, 64, 64), np.float32)).shape == (1, 64, 64)


def test_unknown_layers_are_refused(request_for: Make) -> None:
    wanted = request_for("tensorrt-rtx", "int8")
    graph = export_graph(wanted.checkpoint.generator, (64, 64))
    assert isinstance(wanted.calibration, Calibration)
    with pytest.raises(InputError, match="no operation named nowhere"):
        quantise(graph, wanted.calibration, ("nowhere",))
