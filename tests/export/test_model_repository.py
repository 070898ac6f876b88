"""A served folder: the configuration that Triton parses, the model that both servers load, versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from sccg_export import model_repository
from sccg_export.bundle_writer import pack_golden
from sccg_export.export import export
from sccg_export.model_repository import CONFIG, add_to_repository, check_repository, model_name
from sccg_export.request import ExportRequest
from sccg_runtime.bundle import Bundle, read_golden
from sccg_runtime.contract import Contract
from sccg_runtime.engine import open_session, openvino_core
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import sha256
from sccg_runtime.intensity import FloatArray


def parsed(path: Path) -> Any:
    """``config.pbtxt`` as the message that Triton reads it into."""
    reason = "tritonclient is not installed: pip install '.[dev]'"
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(encoding="utf-8"), messages.ModelConfig())


def served_outputs(version: Path, target: str, inputs: FloatArray) -> FloatArray:
    """What the folder's model makes of (K, 1, H, W): one by one in OpenVINO, as its README says, or at once."""
    if target == "openvino":
        (properties,) = re.findall(r"--plugin_config '(.+)'", (version / "README.md").read_text(encoding="utf-8"))
        compiled = openvino_core().compile_model(version / "model.xml", "CPU", json.loads(properties))
        return np.concatenate([compiled({"input": image[None]})["output"].copy() for image in inputs])
    import onnxruntime

    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    output: FloatArray = session.run(["output"], {"input": inputs})[0]
    return output


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def with_member(bundle: Bundle, name: str, data: bytes) -> Bundle:
    return replace(bundle, members={**bundle.members, name: data})


@pytest.fixture(scope="module")
def made(request_for: Callable[..., ExportRequest], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The student in INT8, by target."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("served")
    return {
        target: export(request_for(target, "int8"), folder / f"{target}.sccg").bundle for target in ("openvino", "ort")
    }


@pytest.fixture(params=["openvino", "ort"])
def bundle(made: dict[str, Bundle], request: pytest.FixtureRequest) -> Bundle:
    return made[request.param]


@pytest.fixture
def openvino(made: dict[str, Bundle]) -> Bundle:
    return made["openvino"]


@pytest.fixture
def ort(made: dict[str, Bundle]) -> Bundle:
    return made["ort"]


def test_triton_parses_the_configuration_and_it_fits_the_model(bundle: Bundle, tmp_path: Path) -> None:
    version = add_to_repository(tmp_path / "models", bundle)
    config = parsed(version.parent / CONFIG)
    contract = bundle.contract
    assert version == tmp_path / "models" / config.name / "1"
    assert config.name == f"mr2ct-s2d-16x2-{contract.target}-int8"
    assert config.backend == {"openvino": "openvino", "ort": "onnxruntime"}[contract.target]
    assert (version / config.default_model_filename).is_file()
    (given,), (made,) = config.input, config.output
    assert (given.name, made.name, given.data_type, made.data_type) == ("input", "output", 11, 11), "11 is TYPE_FP32"
    assert list(given.dims) == list(made.dims) == [1, *contract.engine_size]
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, group.KIND_CPU)
    assert config.HasField("dynamic_batching")
    assert bool(config.parameters) == ("bf16" in (contract.precision_ran or {}))
    model = openvino_core().read_model(version / config.default_model_filename)
    for tensor in (model.inputs[0], model.outputs[0]):
        batch, *sides = tensor.get_partial_shape()
        assert [side.get_length() for side in sides] == [1, *contract.engine_size]
        assert batch.is_dynamic == (config.max_batch_size > 1)


def test_the_model_in_the_folder_gives_the_bundles_output(bundle: Bundle, tmp_path: Path) -> None:
    version = add_to_repository(tmp_path, bundle)
    inputs = read_golden(bundle).inputs
    session = open_session(bundle)
    expected = np.stack([session(image) for image in inputs])
    assert len(inputs) > 1
    np.testing.assert_allclose(served_outputs(version, bundle.contract.target, inputs), expected, atol=1e-5)


def test_clients_are_told_what_the_values_mean(bundle: Bundle, tmp_path: Path) -> None:
    version = add_to_repository(tmp_path, bundle)
    told = (version / "README.md").read_text(encoding="utf-8")
    assert "percentile 99.5 of what lies above" in told
    assert "CT in HU, -1024 HU is -1, 2000 HU is +1" in told
    assert "learned at 64 x 64 pixels of " in told
    assert bundle.sha256 in told
    assert Contract.from_json((version / "contract.json").read_bytes()) == bundle.contract


def test_a_model_that_is_there_gets_the_next_version_and_keeps_what_the_site_changed(
    ort: Bundle, tmp_path: Path
) -> None:
    first = add_to_repository(tmp_path, ort)
    config = first.parent / CONFIG
    config.write_text(config.read_text(encoding="utf-8").replace("count: 1", "count: 4"), encoding="utf-8")
    before = hashes(first.parent)
    first.with_name("9").mkdir()
    second = add_to_repository(tmp_path, ort)
    assert second == first.with_name("10")
    after = hashes(first.parent)
    assert {name: after[name] for name in before} == before
    assert {path.name for path in second.iterdir()} == {path.name for path in first.iterdir()}
    assert parsed(config).instance_group[0].count == 4


@pytest.mark.parametrize("change", ["size", "values", "no configuration", "a file"])
def test_another_interface_under_the_same_name_is_refused(openvino: Bundle, tmp_path: Path, change: str) -> None:
    model = add_to_repository(tmp_path, openvino).parent
    other = openvino
    if change == "size":
        other = replace(openvino, contract=replace(openvino.contract, engine_size=(128, 64)))
    elif change == "values":
        output = replace(openvino.contract.output_intensity, high_hu=1000)
        other = replace(openvino, contract=replace(openvino.contract, output_intensity=output))
    else:
        (model / CONFIG).unlink()
    if change == "a file":
        for path in sorted(model.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        model.rmdir()
        model.touch()
    before = hashes(tmp_path)
    with pytest.raises(InputError, match="choose another --model-repository"):
        add_to_repository(tmp_path, other)
    assert hashes(tmp_path) == before


def test_it_is_written_whole_or_not_at_all(openvino: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def full(_: Bundle) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(model_repository, "_readme", full)
        with pytest.raises(OSError, match="No space"):
            add_to_repository(tmp_path, openvino)
        assert list(tmp_path.iterdir()) == []
    add_to_repository(tmp_path, openvino)
    before = hashes(tmp_path)
    monkeypatch.setattr(model_repository, "_readme", full)
    with pytest.raises(OSError, match="No space"):
        add_to_repository(tmp_path, openvino)
    assert hashes(tmp_path) == before
    assert {path.name for path in (tmp_path / model_name(openvino.contract)).iterdir()} == {CONFIG, "1"}


@pytest.mark.parametrize(("rest", "hint", "other"), [("bf16", "bf16", "fp32"), ("fp32", "f32", "bf16")])
def test_bf16_is_asked_for_where_the_drift_was_measured_with_it(
    openvino: Bundle, tmp_path: Path, rest: str, hint: str, other: str
) -> None:
    def measured(name: str) -> Bundle:
        return replace(openvino, contract=replace(openvino.contract, precision_ran={"int8": 11, name: 2}))

    version = add_to_repository(tmp_path, measured(rest))
    values = {name: value.string_value for name, value in parsed(version.parent / CONFIG).parameters.items()}
    assert values == ({"HINT_BF16": "YES"} if rest == "bf16" else {})
    told = (version / "README.md").read_text(encoding="utf-8")
    assert f'"INFERENCE_PRECISION_HINT": "{hint}"' in told
    assert f"measured in {hint}" in told
    assert add_to_repository(tmp_path, measured(rest)).name == "2"
    with pytest.raises(InputError, match="another precision beside int8"):
        add_to_repository(tmp_path, measured(other))


def test_a_batch_that_gives_another_picture_is_refused(ort: Bundle, tmp_path: Path) -> None:
    golden = read_golden(ort)
    swapped = pack_golden(golden.inputs, golden.fp32_outputs, golden.engine_outputs[::-1])
    with pytest.raises(RefusedError, match="another picture"):
        add_to_repository(tmp_path, with_member(ort, "golden.npz", swapped))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_takes_one_slice_only_is_refused(ort: Bundle, tmp_path: Path) -> None:
    shape = [1, 1, *ort.contract.engine_size]
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("input", "output")]
    wanted = onnx.numpy_helper.from_array(np.array(shape), "shape")
    node = onnx.helper.make_node("Reshape", ["input", "shape"], ["output"])
    graph = onnx.helper.make_graph([node], "one", tensors[:1], tensors[1:], [wanted])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)])
    with pytest.raises(RefusedError, match="takes no batch"):
        add_to_repository(tmp_path, with_member(ort, "model.onnx", model.SerializeToString()))
    assert list(tmp_path.iterdir()) == []


def test_what_no_server_runs_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="openvino or ort, not tensorrt-rtx"):
        check_repository(tmp_path, "tensorrt-rtx")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        check_repository(tmp_path / "file", "ort")
    check_repository(tmp_path / "new", "ort")
