"""What a CPU without VNNI would make of an INT8 engine, and what is done about it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from ruined import with_saturating_pairs
from small_models import digest

from sccg_bench.machine import describe_machine
from sccg_export.export import DriftRefusedError, ExportRequest, export
from sccg_export.gate import DriftBudget
from sccg_export.graph import export_graph
from sccg_export.old_cpu import OldCpu, run_as_old_cpu, why_not
from sccg_export.targets import load_target
from sccg_export.workshop import Workshop
from sccg_runtime.engine import import_openvino
from sccg_runtime.errors import InputError
from sccg_teacher_student.checkpoint import Checkpoint

ANYTHING = DriftBudget(
    min_mean_psnr_db=0, min_worst_psnr_db=0, min_delta_psnr_db=-100, min_delta_ssim=-2, max_delta_mae_u8=255
)
LOOSE = DriftBudget(
    min_mean_psnr_db=42, min_worst_psnr_db=40, min_delta_psnr_db=-50, min_delta_ssim=-1, max_delta_mae_u8=200
)


@pytest.mark.parametrize(
    ("budget", "told_before"), [(LOOSE, "below 42"), (ANYTHING, "the bundle fails its self-test: ")]
)
def test_an_engine_that_saturates_with_avx2_kernels_gets_weights_of_seven_bits(
    budget: DriftBudget,
    told_before: str,
    request_for: Callable[..., ExportRequest],
    student: Checkpoint,
    tmp_path: Path,
) -> None:
    """Whether the gate finds it in the held-out slices, or only the golden slices that such a CPU will test show it."""
    sets = describe_machine().instruction_sets or ()
    if not {"avx512_vnni", "avx_vnni"} & set(sets):
        pytest.skip("this CPU has no VNNI: its own kernels saturate")
    wanted = request_for(checkpoint=with_saturating_pairs(student), budget=budget, old_cpu_check=True)
    said: list[str] = []
    drift = export(wanted, tmp_path / "a.sccg", said.append).bundle.contract.drift
    told = drift["simulated_isa"]
    before = told["with_eight_bit_weights"]
    assert (told["isa"], told["measured"], told["refused"]) == ("AVX2", True, None)
    assert told["engine_drift"]["engine_to_fp32_psnr_db"] >= 42
    assert told_before in before["refused"]
    assert before["golden_to_engine_db"] < 40 < told["golden_to_engine_db"]
    assert drift["seven_bit_weights"] is True
    assert told["precision_ran"]["int8"] > 0
    assert told["p50_ms"] > 0
    assert any("weights of seven bits instead" in line for line in said)


def test_what_seven_bits_cannot_mend_is_refused_and_the_earlier_bundle_stays(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always_over(path: Path, workshop: Workshop) -> OldCpu:
        result, _ = workshop.judge(workshop.fp32_outputs)
        return OldCpu(workshop.fp32_outputs, result, "worst case04/000", 20.0, 1.0, {"int8": 1})

    monkeypatch.setattr("sccg_export.export.run_as_old_cpu", always_over)
    monkeypatch.setattr("sccg_export.export.why_not", lambda target: None)
    out = tmp_path / "a.sccg"
    out.write_bytes(b"the earlier bundle")
    before = digest(out)
    with pytest.raises(DriftRefusedError, match="simulated ISA AVX2: worst case04/000; --no-old-cpu-check") as caught:
        export(request_for(old_cpu_check=True), out)
    assert caught.value.exit_code == 3
    assert digest(out) == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.sccg"]


def test_layers_go_back_to_float_until_an_old_cpu_keeps_the_budget_too(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_there = iter(["eight bits", "seven bits", "one layer in float", None])

    def over_thrice(path: Path, workshop: Workshop) -> OldCpu:
        result, _ = workshop.judge(workshop.fp32_outputs)
        return OldCpu(workshop.fp32_outputs, result, next(said_there), 50.0, 1.0, {"int8": 1})

    monkeypatch.setattr("sccg_export.export.run_as_old_cpu", over_thrice)
    monkeypatch.setattr("sccg_export.export.why_not", lambda target: None)
    made = export(request_for(old_cpu_check=True), tmp_path / "a.sccg")
    drift = made.bundle.contract.drift
    layers = [one["layer"] for one in drift["put_back"]["layers"]]
    assert len(layers) == 2
    assert set(layers) <= set(drift["float_layers"])
    assert drift["put_back"]["without"]["refused"] == "simulated ISA AVX2: seven bits"
    assert drift["seven_bit_weights"] is True
    assert drift["simulated_isa"]["refused"] is None
    assert drift["simulated_isa"]["with_eight_bit_weights"]["refused"] == "eight bits"


@pytest.mark.skipif(why_not("openvino") is not None, reason="no x86")
def test_the_child_runs_the_held_out_slices_of_any_size_in_their_order(
    request_for: Callable[..., ExportRequest], student: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "a.sccg"
    wanted = request_for()
    first = wanted.pairs[0]
    assert first.mr is not None
    assert first.ct is not None
    small = replace(first, slice="small", mr=first.mr[:, :32, :48].copy(), ct=first.ct[:, :32, :48].copy())
    wanted = replace(wanted, pairs=[small, *wanted.pairs])
    made = export(wanted, path)
    old = run_as_old_cpu(path, Workshop(wanted, export_graph(student.generator, (64, 64))))
    for output, here in zip(old.outputs, made.outputs, strict=True):
        assert output.shape == here.shape
        assert float(np.abs(output - here).mean()) < 0.02


def test_what_cannot_be_measured_says_why(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = export(request_for("ort", old_cpu_check=True), tmp_path / "a.sccg").bundle.contract.drift
    reason = "ort cannot be held to an older instruction set"
    assert drift["simulated_isa"] == {"isa": "AVX2", "measured": False, "reason": reason}
    assert drift["seven_bit_weights"] is False
    assert why_not("openvino") is None or platform.machine().lower() not in ("x86_64", "amd64")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert why_not("openvino") == "this machine (aarch64) is no x86"


@pytest.mark.parametrize("target", ["openvino", "ort"])
def test_saturation_safe_weights_use_seven_bits_in_every_layer(
    target: str, request_for: Callable[..., ExportRequest], student: Checkpoint
) -> None:
    module = load_target(target, "int8")
    graph = export_graph(student.generator, (64, 64))
    calibration = request_for(target).calibration
    found = {}
    for safe in (False, True):
        built = module.build(graph, "int8", (64, 64), calibration, saturation_safe=safe)
        found[safe] = largest_weights(target, dict(built.members))
    assert len(found[True]) >= 5
    assert max(found[True]) <= 64
    assert max(found[False]) > 64


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_seven_bit_weights_are_refused_where_there_are_none_of_eight(
    precision: str, request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"--saturation-safe is for --int8, not for {precision}: leave it out"):
        export(request_for(precision=precision, saturation_safe=True), tmp_path / "a.sccg")
    assert list(tmp_path.iterdir()) == []


def largest_weights(target: str, members: dict[str, bytes]) -> list[int]:
    """Largest magnitude of every int8 weight (C, C, kh, kw)."""
    if target == "ort":
        model = onnx.load_from_string(members["model.onnx"])
        arrays = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    else:
        model = import_openvino().Core().read_model(members["model.xml"], members["model.bin"])
        arrays = [node.data for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    return [int(np.abs(one.astype(np.int32)).max()) for one in arrays if one.dtype == np.int8 and one.ndim == 4]
