"""``sccg-compress export``: bundles of runs and checkpoints, JSON, the gate's refusal with its picture."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from command_line import Cli, Lab
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sccg_compress.export_command import _cases, drift_lines
from sccg_runtime.bundle import read_bundle
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.data.splits import training_cases


def test_without_arguments_the_newest_run_is_exported_in_float32_beside_its_student(run: Cli, lab: Lab) -> None:
    said = run("export")
    assert said.code == 0, said
    made = lab.run / "s2d-16x2-openvino-fp32.sccg"
    contract = read_bundle(made).contract
    assert (contract.precision_asked, contract.generator_sha256) == ("fp32", sha256(lab.run / "student.safetensors"))
    assert str(made.relative_to(lab.root)) in said.out
    assert "to_teacher_psnr_db" in said.out, "the run's teacher was found"
    assert f"data: {lab.phantom}, as recorded" in said.err
    assert contract.drift["slices"] == 4


def test_patients_kept_for_tests_never_calibrate_though_they_are_called_alike(lab: Lab) -> None:
    record = load_checkpoint(lab.run / "student.safetensors").record
    assert record is not None
    source = open_data(lab.phantom)
    assert _cases(record, source) == (record.train_cases, record.val_cases)
    grown = replace(record, train_cases=source.splits["train"], val_cases=())
    assert _cases(grown, source) == (grown.train_cases, source.splits["val"]), "who came since, but the tests'"
    other = replace(record, train_cases=source.splits["test"], val_cases=source.splits["val"])
    assert _cases(other, source) == (source.splits["train"], source.splits["val"])


@given(seed=st.integers(0, 99), lost=st.integers(0, 7))
def test_held_out_patients_never_calibrate_where_one_that_was_learned_from_is_gone(seed: int, lost: int) -> None:
    source = Mock(cases=tuple(f"case{number}" for number in range(10)), splits={})
    train, val = training_cases(source, seed=seed)
    source.cases = tuple(case for case in source.cases if case != train[lost % len(train)])
    calibrating, measured = _cases(Mock(train_cases=train, val_cases=val), source)
    assert calibrating
    assert set(calibrating) <= set(train)
    assert sorted(measured) == sorted(val)


def test_int8_of_held_out_patients_alone_is_refused(run: Cli, lab: Lab) -> None:
    shutil.copytree(lab.phantom / "val", lab.root / "others")
    run("export", "--int8", "--data", lab.root / "others").refused("others has held-out cases only", "to calibrate on")


def test_json_on_stdout_is_valid_and_alone(lab: Lab) -> None:
    command = [sys.executable, "-m", "sccg_compress", "export", "--int8", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    made = lab.root / told["bundle"]
    assert told["sha256"] == sha256(made)
    assert told["precision_ran"]["int8"] > 0
    assert told["slices"] == 4
    assert told["figures"]["engine_to_fp32_psnr_db"] > 40


def test_a_refused_gate_is_exit_code_3_with_a_picture_and_no_bundle(run: Cli, lab: Lab) -> None:
    out = lab.root / "strict.sccg"
    said = run("export", "--int8", "--min-psnr", 99, "--out", out)
    picture = lab.root / "strict-refused.png"
    said.refused("engine_to_fp32_psnr_db", "(below 99)", "worst case", str(picture), code=3)
    with Image.open(picture) as image:
        assert min(image.size) > 64
    assert not out.exists()


def test_int8_says_what_old_cpus_make_of_it_and_how_far_the_teacher_is(run: Cli, lab: Lab) -> None:
    said = run("export", "--int8")
    assert said.code == 0, said
    told = read_bundle(lab.run / "s2d-16x2-openvino-int8.sccg").contract.drift
    assert told["simulated_isa"]["isa"] == "AVX2"
    assert "simulated ISA AVX2: " in said.out
    teacher = told["teacher"]
    assert f"to the teacher: engine {teacher['engine_psnr_db']:.2f} dB" in said.out
    assert f"its FP32 network {teacher['fp32_psnr_db']:.2f} dB" in said.out


def test_without_the_check_for_old_cpus_the_output_says_so(run: Cli, lab: Lab) -> None:
    said = run("export", "--int8", "--no-old-cpu-check")
    assert said.code == 0, said
    assert "simulated ISA AVX2: not measured: this check was left out" in said.out


def test_weights_of_seven_bits_are_for_onnx_runtime(run: Cli, lab: Lab) -> None:
    said = run("export", "--int8", "--target", "ort", "--saturation-safe")
    assert said.code == 0, said
    assert "weights of seven bits in all int8 layers" in said.out
    run("export", "--int8", "--saturation-safe").refused("--saturation-safe is for --target ort")


def test_a_budget_for_the_teacher_refuses_where_it_is_given(run: Cli, lab: Lab) -> None:
    said = run("export", "--target", "ort", "--max-teacher-psnr-drop", -50)
    said.refused("drop of to_teacher_psnr_db", "(above -50)", code=3)
    assert not (lab.run / "s2d-16x2-ort-fp32.sccg").exists()


def test_layers_that_went_back_to_float_are_printed_with_gain_and_cost() -> None:
    layers = [{"layer": "conv_3", "gain_db": 4.25}, {"layer": "sum_1", "gain_db": 0.5}]
    cost = {"with_p50_ms": 3.5, "without_p50_ms": 3.25, "size": [256, 192]}
    drift = {"teacher": {"measured": False, "reason": "none"}, "put_back": {"layers": layers, "cost": cost}}
    assert drift_lines(drift) == [
        "to the teacher: not measured: none",
        "back in float, most harmful first: conv_3 (+4.25 dB), sum_1 (+0.50 dB); "
        "p50 3.50 instead of 3.25 ms at 256x192",
    ]


def test_the_quantiser_is_printed() -> None:
    drift = {"teacher": {"measured": False, "reason": "none"}, "quantizer": "inc 3.10"}
    assert drift_lines(drift)[-1] == "int8 by inc 3.10"


def test_quantisers_and_targets_that_do_not_fit_are_one_line(
    run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("export", "--target", "ort", "--int8", "--quantizer", "nncf").refused("target ort takes ort, inc", code=2)
    run("export", "--quantizer", "ort").refused("--quantizer ort is for --int8", code=2)
    monkeypatch.setattr("sccg_export.requirements.driver_cuda_version", lambda: None)
    run("export", "--target", "tensorrt", "--fp16").refused("no driver is here", "--target tensorrt-rtx", code=2)
    assert not list(lab.run.glob("*.sccg"))


def test_the_training_checkpoint_of_a_run_exports_too(run: Cli, lab: Lab) -> None:
    kept = load_checkpoint(lab.run / "student.safetensors")
    assert kept.record is not None
    content = {
        "schema": "sccg-run/1",
        "spec": json.dumps(kept.spec.to_dict()),
        "record": json.dumps(kept.record.to_dict()),
        "average": kept.generator.state_dict(),
    }
    torch.save(content, lab.run / "last.pt")
    said = run("export", lab.run / "last.pt", "--target", "ort")
    assert said.code == 0, said
    assert "averaged weights are used" in said.err
    assert read_bundle(lab.run / "last-ort-fp32.sccg").contract.generator_sha256 == sha256(lab.run / "last.pt")


def test_a_cyclegan_teacher_exports_with_the_direction_of_its_name(run: Cli, lab: Lab) -> None:
    path = lab.root / "latest_net_G_ct2mr.pth"
    torch.save(load_checkpoint(lab.teacher).generator.state_dict(), path)
    said = run("export", path.name, "--data", lab.phantom)
    assert said.code == 0, said
    assert "direction: ct2mr, from the name" in said.err
    assert "carries no record" in said.err
    contract = read_bundle(lab.root / "latest_net_G_ct2mr-openvino-fp32.sccg").contract
    assert contract.direction == "ct2mr"
    assert contract.teacher_sha256 is None
    assert contract.drift["held_out"] is None, "nobody knows what it learned from"
    assert "on 4 validation slices" in said.out


def test_teachers_of_one_folder_do_not_overwrite_each_others_bundles(run: Cli, lab: Lab) -> None:
    kept = load_checkpoint(lab.teacher)
    assert kept.record is not None
    (lab.root / "made").mkdir()
    given, made = kept.record.input_intensity, kept.record.output_intensity
    turned = replace(kept.record, direction="ct2mr", input_intensity=made, output_intensity=given)
    for direction, record in (("mr2ct", kept.record), ("ct2mr", turned)):
        save_checkpoint(lab.root / "made" / f"teacher_{direction}.safetensors", kept.generator, kept.spec, record)
        assert run("export", f"made/teacher_{direction}.safetensors").code == 0
        bundle = read_bundle(lab.root / "made" / f"teacher_{direction}-openvino-fp32.sccg")
        assert bundle.contract.direction == direction
    run("export", "made").refused("made holds 2 teachers", "made/teacher_mr2ct.safetensors", "teacher_ct2mr")
    (lab.root / "made" / "teacher_ct2mr.safetensors").unlink()
    (lab.root / "made" / "last.pt").write_bytes(b"of the last step")
    assert run("export", "made", "--target", "ort").code == 0, "the best one, not the last one"


def test_another_teacher_is_told_and_the_contract_says_which(run: Cli, lab: Lab) -> None:
    own = run("export")
    assert "another teacher" not in own.err
    bundle = lab.run / "s2d-16x2-openvino-fp32.sccg"
    assert read_bundle(bundle).contract.drift["teacher"]["sha256"] == sha256(lab.teacher)
    kept = load_checkpoint(lab.teacher)
    assert kept.record is not None
    other = lab.root / "other.safetensors"
    save_checkpoint(other, kept.generator, kept.spec, replace(kept.record, simulated_data=False))
    said = run("export", "--teacher", other)
    assert "student.safetensors learned from another teacher; drift is to other.safetensors" in said.err
    assert read_bundle(bundle).contract.drift["teacher"]["sha256"] == sha256(other)


def test_a_teacher_that_is_gone_is_told_in_one_line_and_done_without(run: Cli, lab: Lab) -> None:
    config = lab.run / "config.json"
    config.unlink()
    config.write_text(json.dumps({"teacher": "/gone/teacher.pth"}), encoding="utf-8")
    said = run("export")
    assert said.code == 0, said
    told = [line for line in said.err.splitlines() if "/gone/teacher.pth" in line]
    assert len(told) == 1
    assert "to_teacher_psnr_db" not in said.out


def test_a_teacher_of_the_other_direction_is_refused(run: Cli, lab: Lab) -> None:
    other = lab.root / "net_ct2mr.safetensors"
    kept = load_checkpoint(lab.teacher)
    assert kept.record is not None
    save_checkpoint(other, kept.generator, kept.spec, replace(kept.record, direction="ct2mr"))
    run("export", "--teacher", other).refused("net_ct2mr.safetensors is ct2mr", "is mr2ct")


def test_data_of_another_intensity_is_told(run: Cli, lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    text = (lab.phantom / "sccg.toml").read_text(encoding="utf-8")
    assert "2000" in text
    other.write_text(text.replace("2000", "1000"), encoding="utf-8")
    assert "learned from CT of another intensity" in run("export", "--intensity", other).err
    assert "another intensity" not in run("export").err


def test_figures_of_slices_that_were_learned_from_are_not_called_held_out(run: Cli, lab: Lab, tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(next(lab.phantom.glob("train/case*")), one / "case99")
    shutil.copy(lab.phantom / "sccg.toml", one)
    said = run("export", lab.run, "--data", one)
    assert said.code == 0, said
    assert "training slices:" in said.out
    assert "held-out slices" not in said.out
    assert read_bundle(lab.run / "s2d-16x2-openvino-fp32.sccg").contract.drift["held_out"] is False


def test_drift_is_measured_on_the_cases_that_the_network_did_not_learn_from(run: Cli, lab: Lab, tmp_path: Path) -> None:
    """The same cases in a folder without splits: the record says which were held out, not a new draw."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for case in lab.phantom.glob("*/case*"):
        shutil.copytree(case, flat / case.name)
    shutil.copy(lab.phantom / "sccg.toml", flat)
    assert run("export", "--data", flat).code == 0
    drift = read_bundle(lab.run / "s2d-16x2-openvino-fp32.sccg").contract.drift
    held_out = {path.name for path in (lab.phantom / "val").iterdir()}
    assert {one["case"] for one in drift["per_patient"]} == held_out
    assert drift["held_out"]
    assert drift["data"] == "flat"


def test_what_would_be_ignored_or_cannot_end_well_is_told_at_once(run: Cli, lab: Lab) -> None:
    run("export", "--seed", 1).refused("--seed", "leave it out")
    run("export", "--no-old-cpu-check").refused("--no-old-cpu-check", "leave it out")
    run("export", "--int8", "--target", "ort", "--no-old-cpu-check").refused("--no-old-cpu-check", "leave it out")
    run("export", "--size", 4096).refused("4096x4096 is more than a bundle holds")


def test_precisions_exclude_each_other(run: Cli, lab: Lab) -> None:
    run("export", "--fp16", "--int8").refused("--fp16 and --int8 exclude each other")
    run("export", "--fp32", "--bf16").refused("--fp32 and --bf16 exclude each other")


def test_fp16_is_said_to_be_a_way_of_storing_and_shown_as_what_ran(run: Cli, lab: Lab) -> None:
    said = run("export", "--fp16")
    assert said.code == 0, said
    assert "weights are stored in FP16; arithmetic stays float32" in said.err
    assert "13 fp32" in said.out
    contract = read_bundle(lab.run / "s2d-16x2-openvino-fp16.sccg").contract
    assert (contract.precision_asked, contract.precision_ran) == ("fp16", {"fp32": 13})


def test_bf16_is_one_line_where_the_cpu_has_none(run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sccg_export.requirements.cpu_capabilities", lambda: frozenset({"FP32", "INT8"}))
    run("export", "--bf16").refused("this CPU computes no bf16", "--fp32, --fp16 or --int8")
    assert list(lab.run.glob("*.sccg")) == []


def test_a_missing_package_is_named_with_its_extra(run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sccg_export.requirements.installed", lambda name: None)
    run("export", "--target", "tensorrt-rtx").refused(
        "tensorrt-rtx-cu12, which is not installed", "pip install '.[rtx]'"
    )


def test_an_rtx_engine_says_what_was_measured(run: Cli, lab: Lab) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed: pip install '.[rtx]'")
    if torch.cuda.is_available():
        pytest.skip("an NVIDIA GPU is here: drift may be measured on the engine")
    said = run("export", "--target", "tensorrt-rtx", "--fp16", "--gpu-arch", "8.9", "--json", "made.json")
    assert said.code == 0, said
    assert "engine for SM 8.9; no NVIDIA GPU here" in said.err
    assert "(measured on the graph, not the engine)" in said.out
    told = json.loads((lab.root / "made.json").read_text(encoding="utf-8"))
    assert (told["drift_measured_on"], told["precision_ran"]) == ("graph", {"fp16": 13})
    assert Path(told["bundle"]).name == "s2d-16x2-tensorrt-rtx-fp16-sm89.sccg"
    run("export", "--gpu-arch", "8.9").refused("--gpu-arch 8.9: it is for --target tensorrt-rtx only")


def test_a_model_repository_is_made_beside_the_bundle(run: Cli, lab: Lab) -> None:
    arguments = ("export", "--target", "ort", "--model-repository", "served models")
    said = run(*arguments, "--json", "made.json")
    assert said.code == 0, said
    version = Path("served models", "mr2ct-s2d-16x2-ort-fp32", "1")
    assert f"{version}: for Triton and OpenVINO Model Server" in said.out
    assert json.loads((lab.root / "made.json").read_text(encoding="utf-8"))["model_repository"] == str(version)
    bundle = read_bundle(lab.run / "s2d-16x2-ort-fp32.sccg")
    assert bundle.sha256 in (version / "README.md").read_text(encoding="utf-8")
    rtx = ("export", "--target", "tensorrt-rtx", "--model-repository", "served models")
    run(*rtx).refused("tensorrt-rtx")
    (version.parent / "config.pbtxt").unlink()
    run(*arguments).refused("has no config.pbtxt", "the bundle is at runs/first/s2d-16x2-ort-fp32.sccg")


@pytest.mark.parametrize("target", ["openvino", "ort"])
def test_another_size_is_the_engines_not_the_networks(target: str, run: Cli, lab: Lab) -> None:
    assert run("export", "--target", target, "--size", "128").code == 0
    contract = read_bundle(lab.run / f"s2d-16x2-{target}-fp32-128x128.sccg").contract
    assert (contract.engine_size, contract.trained_size) == ((128, 128), (64, 64))


def test_no_engine_takes_another_ones_place(run: Cli, lab: Lab) -> None:
    int8 = ("export", "--int8", "--target", "ort", "--size")
    assert run(*int8, 64).code == 0
    assert run(*int8, 64, "--seed", 3).code == 0
    assert run(*int8, 32, "--quantizer", "ort", "--saturation-safe").code == 0
    names = ["s2d-16x2-ort-int8-32x32-ort-7bit.sccg", "s2d-16x2-ort-int8-seed3.sccg", "s2d-16x2-ort-int8.sccg"]
    assert sorted(path.name for path in lab.run.glob("*.sccg")) == names
