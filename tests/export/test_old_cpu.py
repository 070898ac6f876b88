"""What a CPU without VNNI would make of an INT8 engine, and what is done about it."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from ruined import with_saturating_pairs

from sccg_bench.machine import describe_machine
from sccg_export import ort_target
from sccg_export.export import export
from sccg_export.gate import DriftBudget
from sccg_export.graph import export_graph
from sccg_export.old_cpu import OldCpu, run_as_old_cpu, why_not
from sccg_export.request import DriftRefusedError, ExportRequest, check_request
from sccg_export.workshop import Workshop
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import Checkpoint

ANYTHING = DriftBudget(
    min_mean_psnr_db=0, min_worst_psnr_db=0, min_delta_psnr_db=-100, min_delta_ssim=-2, max_delta_mae_u8=255
)
LOOSE = DriftBudget(
    min_mean_psnr_db=42, min_worst_psnr_db=40, min_delta_psnr_db=-50, min_delta_ssim=-1, max_delta_mae_u8=200
)


@pytest.mark.parametrize(("budget", "told"), [(LOOSE, "below 42"), (ANYTHING, "the bundle fails its self-test: ")])
def test_weights_that_would_saturate_on_old_cpus_are_rounded_so_that_they_do_not(
    budget: DriftBudget,
    told: str,
    request_for: Callable[..., ExportRequest],
    student: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As NNCF rounds them, the gate finds it in the held-out slices, or the self-test that such a CPU will run does."""
    sets = describe_machine().instruction_sets or ()
    if not {"avx512_vnni", "avx_vnni"} & set(sets):
        pytest.skip("this CPU has no VNNI: its own kernels saturate")
    wanted = request_for(checkpoint=with_saturating_pairs(student), budget=budget, old_cpu_check=True)
    drift = export(wanted, tmp_path / "a.sccg").bundle.contract.drift
    isa = drift["simulated_isa"]
    assert (isa["isa"], isa["measured"], isa["refused"]) == ("AVX2", True, None)
    assert isa["engine_drift"]["engine_to_fp32_psnr_db"] >= 42
    assert isa["golden_to_engine_db"] > 40
    assert isa["precision_ran"]["int8"] > 0
    assert isa["p50_ms"] > 0
    assert "put_back" not in drift
    monkeypatch.setattr("sccg_export.openvino_target.fit_pairs", lambda model, weights: None)
    said: list[str] = []
    with contextlib.suppress(DriftRefusedError):
        export(wanted, tmp_path / "b.sccg", said.append)
    ranking = next(line for line in said if ": ranking " in line)
    assert ranking.startswith("not yet: simulated ISA AVX2: ")
    assert told in ranking


def test_what_float_layers_cannot_mend_is_refused_and_the_earlier_bundle_stays(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always_over(path: Path, workshop: Workshop) -> OldCpu:
        result, _ = workshop.judge(workshop.fp32_outputs)
        return OldCpu(workshop.fp32_outputs, result, "worst case04/000", 20.0, 1.0, {"int8": 1})

    monkeypatch.setattr("sccg_export.export.run_as_old_cpu", always_over)
    monkeypatch.setattr("sccg_export.export.why_not", lambda target: None)
    out = tmp_path / "a.sccg"
    out.write_bytes(b"the earlier bundle")
    before = sha256(out)
    wanted = request_for(old_cpu_check=True)
    with pytest.raises(DriftRefusedError, match="simulated ISA AVX2: worst case04/000; --no-old-cpu-check") as caught:
        export(wanted, out)
    assert caught.value.exit_code == 3
    assert caught.value.result.outputs is caught.value.result.fp32_outputs  # as the old CPU gave them
    assert sha256(out) == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.sccg"]


def test_layers_go_back_to_float_until_an_old_cpu_keeps_the_budget_too(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_there = iter(["eight bits", "one layer in float", None])

    def over_twice(path: Path, workshop: Workshop) -> OldCpu:
        result, _ = workshop.judge(workshop.fp32_outputs)
        return OldCpu(workshop.fp32_outputs, result, next(said_there), 50.0, 1.0, {"int8": 1})

    monkeypatch.setattr("sccg_export.export.run_as_old_cpu", over_twice)
    monkeypatch.setattr("sccg_export.export.why_not", lambda target: None)
    made = export(request_for(old_cpu_check=True), tmp_path / "a.sccg")
    drift = made.bundle.contract.drift
    layers = [one["layer"] for one in drift["put_back"]["layers"]]
    assert len(layers) == 2
    assert {layer for layer in layers if "conv" in layer} <= set(drift["float_layers"])  # sums are not listed there
    assert drift["put_back"]["without"]["refused"] == "simulated ISA AVX2: eight bits"
    assert drift["simulated_isa"]["refused"] is None


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


def test_saturation_safe_weights_use_seven_bits_in_every_layer(
    request_for: Callable[..., ExportRequest], student: Checkpoint
) -> None:
    graph = export_graph(student.generator, (64, 64))
    calibration = request_for("ort").calibration
    found = {}
    for safe in (False, True):
        built = ort_target.build(graph, "int8", (64, 64), calibration, saturation_safe=safe)
        model = onnx.load_from_string(built.members["model.onnx"])
        weights = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
        found[safe] = [int(np.abs(one.astype(int)).max()) for one in weights if one.dtype == np.int8 and one.ndim == 4]
    assert len(found[True]) >= 5
    assert max(found[True]) <= 64
    assert max(found[False]) > 64


@pytest.mark.parametrize(
    ("target", "precision", "told"),
    [
        ("ort", "fp32", "is for --int8, not for fp32"),
        ("openvino", "fp16", "is for --int8, not for fp16"),
        ("openvino", "int8", "is for --target ort: nothing saturates in openvino"),
        ("tensorrt-rtx", "int8", "is for --target ort: nothing saturates in tensorrt-rtx"),
    ],
)
def test_seven_bit_weights_are_refused_where_nothing_needs_them(
    target: str, precision: str, told: str, request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    wanted = request_for("ort", precision=precision, saturation_safe=True)
    with pytest.raises(InputError, match=f"--saturation-safe {told}: leave it out"):
        check_request(replace(wanted, target=target))
