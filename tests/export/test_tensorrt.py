"""Target ``tensorrt``: what is asked of the machine before anything starts, and, on a card, the engine itself."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import TEACHER, fresh, run_torch

from sccg_export import ort_target, requirements, tensorrt_target
from sccg_export.export import export
from sccg_export.graph import Graph, export_graph
from sccg_export.request import ExportRequest
from sccg_export.requirements import driver_cuda_version, examine, why_not
from sccg_export.runnables import BundleRunnable
from sccg_export.targets import load_target
from sccg_runtime.bundle import DRIFT_MEMBER, read_golden
from sccg_runtime.errors import InputError, MissingDependencyError, RefusedError
from sccg_runtime.files import sha256

only = pytest.mark.parametrize
Make = Callable[..., ExportRequest]


@pytest.fixture(scope="module")
def plain() -> Graph:
    return export_graph(fresh("s2d-16x2-plain"), (32, 32))


def machine(monkeypatch: pytest.MonkeyPatch, driver: str | None, **packages: str | None) -> None:
    """Pretend that this driver and these versions are here; underscores stand for hyphens."""
    monkeypatch.setattr(requirements, "driver_cuda_version", lambda: driver)
    monkeypatch.setattr(requirements, "installed", lambda name: packages.get(name.replace("-", "_")))


@only("precision", ["fp32", "fp16"])
def test_without_a_driver_one_line_points_to_the_target_that_needs_none(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, None)
    with pytest.raises(InputError) as told:
        load_target("tensorrt", precision)  # type: ignore[arg-type]
    assert str(told.value) == (
        "target tensorrt builds on an NVIDIA GPU, and no driver is here: --target tensorrt-rtx builds without one"
    )
    assert told.value.exit_code == 2


@only(
    ("packages", "told"),
    [
        ({"torch": "2.13.0"}, r"needs torch-tensorrt, which is not installed: pip install '\.\[gpu\]'"),
        ({"torch": "2.13.0+cpu", "torch_tensorrt": "2.13.0"}, "PyTorch with CUDA: pip install"),
        (
            {"torch": "2.13.1+cu130", "torch_tensorrt": "2.14.0"},
            r"torch-tensorrt 2\.13, as torch 2\.13\.1\+cu130, inst",
        ),
        (
            {"torch": "2.13.1", "torch_tensorrt": "2.1.3"},
            r"instead of 2\.1\.3: pip install 'torch-tensorrt==2\.13\.\*'",
        ),
    ],
)
def test_what_does_not_fit_together_is_told_with_what_to_do(
    packages: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, "13.0", **packages)
    with pytest.raises(InputError, match=told):
        load_target("tensorrt", "fp16")
    assert len(examine("tensorrt").missing) == 1


def test_doctor_and_export_find_nothing_missing_where_the_minor_versions_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, "13.0", torch="2.13.1+cu130", torch_tensorrt="2.13.0")
    status = examine("tensorrt")
    assert status.missing == ()
    assert status.precisions == {"fp32": None, "fp16": None}
    assert why_not("tensorrt", "fp16") is None


def test_what_the_target_does_not_have_is_refused(plain: Graph) -> None:
    with pytest.raises(InputError, match="target tensorrt has no int8; it has fp32, fp16"):
        load_target("tensorrt", "int8")
    with pytest.raises(InputError, match="for --target tensorrt-rtx only"):
        load_target("tensorrt", "fp16", "8.6")


def test_a_torch_tensorrt_that_does_not_load_is_told_in_one_line(plain: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"torch_tensorrt does not load .*: pip install '\.\[gpu\]'"):
        tensorrt_target.build(plain, "fp32", plain.size, None)


class Stand:
    """Stands in for torch_tensorrt and TensorRT, whose engine halves every pixel; it remembers what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, dtype: str = "Half", spoilt: float = 0) -> None:
        self.keywords: dict[str, Any] = {}
        layer = {"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": dtype}], "Outputs": []}
        self.information = json.dumps({"Layers": [layer]})
        self.dynamo = SimpleNamespace(
            Debugger=self.debugger, convert_exported_program_to_serialized_trt_engine=self.convert
        )
        self.runtime = SimpleNamespace(TorchTensorRTModule=Halving)
        self.save = lambda program, path: Path(path).write_bytes(b"program")
        self.load = lambda path: SimpleNamespace(module=lambda: lambda image: image / 2 + spoilt)
        engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=("image", "output0").__getitem__,
            get_tensor_mode=lambda name: "in" if name == "image" else "out",
            create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: self.information),
        )
        tensorrt = SimpleNamespace(
            __version__="11.0.0",
            ILogger=object,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda engine_bytes: engine),
        )
        monkeypatch.setattr(tensorrt_target, "DEVICE", "cpu")
        monkeypatch.setattr(tensorrt_target, "_import_torch_tensorrt", lambda: self)
        monkeypatch.setattr(tensorrt_target, "import_tensorrt", lambda target: tensorrt)
        monkeypatch.setattr(tensorrt_target, "trt_logger", lambda target: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")

    @contextlib.contextmanager
    def debugger(self, **keywords: Any) -> Iterator[None]:
        logging.getLogger().handlers[:] = []
        logging.getLogger().setLevel(logging.CRITICAL)
        yield

    def convert(self, program: torch.export.ExportedProgram, **keywords: Any) -> bytes:
        self.keywords = keywords
        return b"engine"


class Halving(torch.nn.Module):
    def __init__(self, **keywords: Any) -> None:
        super().__init__()
        assert (keywords["input_binding_names"], keywords["output_binding_names"]) == (["image"], ["output0"])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image / 2


def test_the_engine_lies_beside_the_same_engine_as_a_program(plain: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    stand = Stand(monkeypatch)
    built = tensorrt_target.build(plain, "fp16", plain.size, None)
    assert (list(root.handlers), root.level) == before, "the debugger's handlers are gone"
    assert set(stand.keywords) == {"arg_inputs", "disable_tf32", "timing_cache_path"}, "it ignores what it knows not"
    assert built.members == {"model.engine": b"engine"}
    assert built.beside == {".pt2": b"program"}
    assert built.details["exported_program_sha256"] == sha256(b"program")
    assert (built.engine, built.engine_version, built.measured_on) == ("TensorRT", "11.0.0", "engine")
    assert (built.precision_ran, built.details["layers"]) == ({"fp16": 1}, {"CASKCONVOLUTION HALF": 1})


def test_an_engine_in_another_type_or_a_program_with_another_output_is_refused(
    plain: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stand(monkeypatch, dtype="Float")
    with pytest.raises(RefusedError, match="fp16 was asked for, but TensorRT's network has convolutions of 1 fp32"):
        tensorrt_target.build(plain, "fp16", plain.size, None)
    Stand(monkeypatch, spoilt=0.25)
    with pytest.raises(RefusedError, match=r"the exported program differs from its engine by up to 0\.25"):
        tensorrt_target.build(plain, "fp16", plain.size, None)


def test_files_beside_a_bundle_are_written_with_it_and_not_without(
    request_for: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build = ort_target.build
    monkeypatch.setattr(ort_target, "build", lambda *args, **more: replace(build(*args, **more), beside={".pt2": b"x"}))
    said: list[str] = []
    export(request_for("ort", "fp32"), tmp_path / "model.sccg", said.append)
    assert {one.name for one in tmp_path.iterdir()} == {"model.sccg", "model.pt2"}
    assert (tmp_path / "model.pt2").read_bytes() == b"x"
    assert said[-1] == "beside it: model.pt2"


on_a_card = pytest.mark.skipif(
    driver_cuda_version() is None or why_not("tensorrt", "fp16") is not None,
    reason="no NVIDIA driver with torch-tensorrt: the engine can be neither built nor run",
)


@pytest.mark.gpu
@on_a_card
@only("precision", ["fp32", "fp16"])
def test_on_a_card_engine_and_program_are_built_inspected_and_run(
    precision: str, request_for: Make, tmp_path: Path
) -> None:
    import torch_tensorrt

    path = tmp_path / "trt.sccg"
    bundle = export(request_for("tensorrt", precision), path).bundle
    made = bundle.contract
    assert made.engine == "TensorRT"
    assert made.drift_measured_on == "engine"
    assert set(made.precision_ran or ()) == {precision}
    built = json.loads(bundle.members[DRIFT_MEMBER])["build"]
    assert built["engine_mib"] == len(bundle.members["model.engine"]) / 2**20 > 0
    assert built["exported_program_sha256"] == sha256(path.with_suffix(".pt2"))
    assert not {"NORMALIZATION HALF", "REDUCE HALF"} & set(built["layers"])
    golden = read_golden(bundle)
    difference = np.abs(golden.engine_outputs - golden.fp32_outputs).max()
    assert difference < {"fp32": 1e-3, "fp16": 2e-2}[precision]
    if precision == "fp16":
        assert difference > 1e-5
    call = BundleRunnable("trt", path).open((64, 64), 1)
    np.testing.assert_allclose(call(golden.inputs[0]), golden.engine_outputs[0], atol=1e-4)
    program = torch_tensorrt.load(str(path.with_suffix(".pt2"))).module()
    with torch.inference_mode():
        again = program(torch.from_numpy(golden.inputs[0])[None].cuda())[0].cpu().numpy()
    np.testing.assert_allclose(again, golden.engine_outputs[0], atol=1e-3)


@pytest.mark.gpu
@on_a_card
def test_on_a_card_a_teacher_keeps_its_instance_norms_in_float32() -> None:
    network = fresh(TEACHER)
    built = tensorrt_target.build(export_graph(network, (64, 64)), "fp16", (64, 64), None)
    assert set(built.precision_ran or ()) == {"fp16"}
    assert built.open is not None
    image = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    contract = SimpleNamespace(target="tensorrt", engine_version=built.engine_version, precision_ran=None)
    session = built.open(SimpleNamespace(name="t", contract=contract, members=built.members), (64, 64))  # type: ignore[arg-type]
    assert np.abs(session(image) - run_torch(network.eval(), image)).max() < 2e-2
