import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sccg_runtime import engine
from sccg_runtime.bundle import read_bundle
from sccg_runtime.engine import open_session
from sccg_runtime.errors import BundleError, InputError, MissingDependencyError, RefusedError


def image(rows=64, columns=64):
    return np.random.default_rng(0).uniform(-1, 1, (1, rows, columns)).astype(np.float32)


def test_the_session_computes_what_the_network_does(bundle_file):
    for kind, sign in (("identity", 1), ("negative", -1)):
        session = open_session(read_bundle(bundle_file(kind=kind)))
        np.testing.assert_allclose(session(image()), sign * image(), atol=1e-6)


def test_what_ran_is_read_back_from_the_engine(bundle_file):
    description = open_session(read_bundle(bundle_file()), threads=1).description
    assert description.engine == "OpenVINO"
    assert description.engine_version.startswith("2026.")
    assert description.precision_ran == {"fp32": 2}
    assert (description.device, description.threads, description.size) == ("CPU", 1, (64, 64))


def test_another_size_is_compiled(bundle_file):
    session = open_session(read_bundle(bundle_file()), size=(32, 80))
    assert session(image(32, 80)).shape == (1, 32, 80)


def test_outputs_are_copies_of_their_own(bundle_file):
    session = open_session(read_bundle(bundle_file()))
    first = session(image())
    kept = first.copy()
    session(-image())
    np.testing.assert_array_equal(first, kept)


def test_sizes_that_the_stride_does_not_divide_are_refused(bundle_file):
    with pytest.raises(InputError, match="stride 8"):
        open_session(read_bundle(bundle_file()), size=(60, 64))


@pytest.mark.parametrize("threads", [0, 10**20])
def test_threads_that_cannot_be_are_refused(bundle_file, threads):
    with pytest.raises(InputError, match="threads must be 1 to 1024"):
        open_session(read_bundle(bundle_file()), threads=threads)


def test_a_slice_of_another_shape_or_type_is_refused(bundle_file):
    session = open_session(read_bundle(bundle_file()))
    for wrong in (image(32, 32), image().astype(np.float64), image()[0]):
        with pytest.raises(InputError):
            session(wrong)


def test_values_that_are_not_finite_are_refused(bundle_file):
    session = open_session(read_bundle(bundle_file(kind="nan")))
    with pytest.raises(RefusedError, match="not finite"):
        session(image())


def test_a_damaged_model_gives_one_line(make, tmp_path):
    contract = make.contract()
    members = make.members_for(tmp_path, contract)
    for name, content in {"model.xml": b"<net", "model.bin": b""}.items():
        path = make.pack(tmp_path / f"bad-{name}.sccg", contract, members | {name: content})
        with pytest.raises(BundleError, match="OpenVINO cannot load") as caught:
            open_session(read_bundle(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_is_refused_with_advice(bundle_file, make, target):
    contract = make.contract(target=target)
    assert not contract.runs_on_cpu
    with pytest.raises(MissingDependencyError, match=r"needs an NVIDIA GPU and cannot run here.*--target openvino"):
        open_session(read_bundle(bundle_file(contract)))


def test_onnxruntime_that_is_missing_is_named(bundle_file, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"sccg-runtime\[ort\]"):
        open_session(read_bundle(bundle_file(make.contract(target="ort"))))


def _protobuf(*fields):
    """Protocol buffer bytes of (number, value): an int as a varint, bytes or text with their length. Below 128 only."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(bytes((number << 3, value)))
        else:
            content = value.encode() if isinstance(value, str) else value
            parts.append(bytes((number << 3 | 2, len(content))) + content)
    return b"".join(parts)


def _onnx_identity():
    """An ONNX model of one Identity node for float (1, 1, H, W)."""
    sides = [_protobuf((1, _protobuf((1, 1)))) for _ in range(2)] + [_protobuf((1, _protobuf((2, s)))) for s in "HW"]
    shape = b"".join(_protobuf((1, side[2:])) for side in sides)
    tensor = _protobuf((1, _protobuf((1, 1), (2, shape))))
    node = _protobuf((1, "x"), (2, "y"), (4, "Identity"))
    graph = _protobuf(
        (1, node), (2, "g"), (11, _protobuf((1, "x"), (2, tensor))), (12, _protobuf((1, "y"), (2, tensor)))
    )
    return _protobuf((1, 8), (8, _protobuf((2, 17))), (7, graph))


def test_onnxruntime_runs_where_it_is_installed(make, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra ort is not installed")
    contract = make.contract(target="ort", precision_ran={"int8": 3})
    members = make.members_for(tmp_path, contract) | {"model.onnx": _onnx_identity()}
    session = open_session(read_bundle(make.pack(tmp_path / "ort.sccg", contract, members)), size=(32, 48), threads=1)
    np.testing.assert_array_equal(session(image(32, 48)), image(32, 48))
    description = session.description
    assert (description.engine, description.device, description.threads) == ("ONNX Runtime", "CPU", 1)
    assert description.precision_ran == {"int8": 3}
    assert "at export" in description.precision_source


def test_onnxruntime_keeps_no_telemetry(make, tmp_path):
    """Its own switch; with telemetry it leaves the number that it gives the machine in the home folder."""
    pytest.importorskip("onnxruntime", reason="the extra ort is not installed")
    contract = make.contract(target="ort", precision_ran={"int8": 3})
    members = make.members_for(tmp_path, contract) | {"model.onnx": _onnx_identity()}
    bundle, home = make.pack(tmp_path / "ort.sccg", contract, members), tmp_path / "home"
    home.mkdir()
    code = """
import pathlib, sys
from sccg_runtime.bundle import read_bundle
from sccg_runtime.engine import open_session
open_session(read_bundle(pathlib.Path(sys.argv[1])), size=(32, 48))
"""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code, bundle], check=True, env={**variables, "HOME": str(home)})
    assert list(home.rglob("*")) == []


def test_a_damaged_onnx_model_gives_one_line(make, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra ort is not installed")
    contract = make.contract(target="ort")
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        open_session(read_bundle(make.pack(tmp_path / "bad.sccg", contract, make.members_for(tmp_path, contract))))


def test_bf16_needs_a_cpu_that_has_it(bundle_file, make):
    bundle = read_bundle(bundle_file(make.contract(precision_asked="bf16")))
    if "BF16" in engine.cpu_capabilities():
        assert open_session(bundle).description.precision_ran == {"bf16": 2}
    else:
        with pytest.raises(MissingDependencyError, match="BF16"):
            open_session(bundle)


@pytest.mark.parametrize(
    ("measured", "halved"),
    [(None, False), ({}, True), ({"bf16": 2, "int8": 9}, True), ({"fp32": 2, "int8": 9}, False)],
)
def test_int8_uses_bf16_where_the_cpu_has_it_unless_its_drift_was_measured_without(monkeypatch, measured, halved):
    def hint(precision):
        return engine.cpu_properties(precision, 2, measured)["INFERENCE_PRECISION_HINT"]

    monkeypatch.setattr(engine, "cpu_capabilities", lambda: frozenset({"FP32", "INT8", "BF16"}))
    assert hint("int8") == ("bf16" if halved else "f32")
    assert (hint("fp32"), hint("fp16"), hint("bf16")) == ("f32", "f32", "bf16")
    monkeypatch.setattr(engine, "cpu_capabilities", lambda: frozenset({"FP32", "INT8"}))
    assert hint("int8") == "f32"


@pytest.mark.parametrize(("ran", "hint"), [({"bf16": 2, "int8": 9}, "bf16"), ({"fp32": 2, "int8": 9}, "f32")])
def test_a_session_computes_beside_int8_as_the_contract_says(bundle_file, make, monkeypatch, ran, hint):
    asked = []

    class Core:
        def __init__(self, core):
            self.core = core

        def __getattr__(self, name):
            return getattr(self.core, name)

        def compile_model(self, model, device, properties):
            asked.append(properties["INFERENCE_PRECISION_HINT"])
            return self.core.compile_model(model, device, {**properties, "INFERENCE_PRECISION_HINT": "f32"})

    core = Core(engine.openvino_core())
    monkeypatch.setattr(engine, "openvino_core", lambda: core)
    monkeypatch.setattr(engine, "cpu_capabilities", lambda: frozenset({"FP32", "INT8", "BF16"}))
    open_session(read_bundle(bundle_file(make.contract(precision_asked="int8", precision_ran=ran))))
    assert asked == [hint]


def test_an_environment_that_keeps_onednn_to_older_instructions_has_no_bf16(monkeypatch):
    monkeypatch.setattr(
        engine, "openvino_core", lambda: SimpleNamespace(get_property=lambda *_: ["FP32", "INT8", "BF16"])
    )
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert "BF16" in engine.cpu_capabilities()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert engine.cpu_capabilities() == {"FP32", "INT8"}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert "BF16" in engine.cpu_capabilities()


def test_weights_stored_in_fp16_are_computed_in_float32_and_counted_so(make, tmp_path):
    contract = make.contract(precision_asked="fp16")
    members = make.members_for(tmp_path, contract)
    openvino = engine.import_openvino()
    model = openvino.Core().read_model(members["model.xml"], members["model.bin"])
    openvino.save_model(model, tmp_path / "half.xml", compress_to_fp16=True)
    halved = {f"model.{kind}": (tmp_path / f"half.{kind}").read_bytes() for kind in ("xml", "bin")}
    assert len(halved["model.bin"]) < len(members["model.bin"])
    session = open_session(read_bundle(make.pack(tmp_path / "half.sccg", contract, members | halved)))
    assert session.description.precision_ran == {"fp32": 2}


def test_int8_that_does_not_run_in_int8_is_said(bundle_file, make, caplog):
    with caplog.at_level(logging.WARNING, "sccg_runtime"):
        open_session(read_bundle(bundle_file(make.contract(precision_asked="int8"))))
    assert "no layer runs in int8" in caplog.text


def test_telemetry_is_never_imported(bundle_file):
    code = """
import pathlib, sys
from sccg_runtime.bundle import read_bundle
from sccg_runtime.engine import open_session
open_session(read_bundle(pathlib.Path(sys.argv[1])))
assert "openvino" in sys.modules
found = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
assert not found, found
import openvino
assert openvino.convert_model
"""
    subprocess.run([sys.executable, "-c", code, bundle_file()], check=True)
