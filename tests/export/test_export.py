"""A bundle is whole, true, and only there if nothing went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import head, run_torch

from sccg_bench.quality import quality
from sccg_export.bundle_writer import pack, pack_golden
from sccg_export.calibration import choose_calibration
from sccg_export.export import export
from sccg_export.gate import DriftBudget
from sccg_export.graph import OPSET
from sccg_export.request import DriftRefusedError, ExportRequest, ExportResult
from sccg_export.workshop import run_network
from sccg_runtime.bundle import DRIFT_MEMBER, GOLDEN_MEMBER, Bundle, read_bundle, read_golden
from sccg_runtime.engine import open_session
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import sha256
from sccg_runtime.selftest import selftest
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint
from sccg_teacher_student.data.source import DataSource, open_data
from sccg_teacher_student.record import TrainingRecord

Exported = tuple[ExportRequest, ExportResult, Path]
STRICT = DriftBudget(min_mean_psnr_db=99)


def test_the_bundle_reads_back_as_what_export_gave(exported: Exported) -> None:
    _, result, path = exported
    bundle = read_bundle(path)
    assert bundle.contract == result.bundle.contract
    assert bundle.sha256 == sha256(path)
    assert {name: sha256(content) for name, content in bundle.members.items()} == bundle.contract.members
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing temporary is left"


def test_the_contract_says_what_was_made_from_what(exported: Exported) -> None:
    wanted, result, _ = exported
    made, record = result.bundle.contract, wanted.record
    assert (made.direction, made.target, made.precision_asked) == ("mr2ct", wanted.target, wanted.precision)
    assert (made.input_intensity, made.output_intensity) == (record.input_intensity, record.output_intensity)
    assert made.trained_size == made.engine_size == (64, 64)
    assert made.trained_spacing_mm == record.trained_spacing_mm
    assert (made.stride, made.student) == (4, "s2d-16x2")
    assert made.generator == wanted.checkpoint.spec.to_dict()
    assert made.generator_sha256 == sha256(wanted.checkpoint.path)
    assert made.teacher_sha256 == record.teacher_sha256
    assert made.opset == OPSET
    assert made.simulated_data is True
    package = "openvino" if wanted.target == "openvino" else "onnxruntime"
    assert made.engine_version == version(package).split("-")[0]
    assert made.created_by == f"sccg-compress {version('sccg-compress')}"
    assert made.drift_measured_on == "engine"
    if wanted.calibration is None:
        assert made.unknown == {"calibration": f"{wanted.precision} needs none"}
    else:
        assert made.unknown == {}
        assert made.calibration == wanted.calibration.to_dict()


def test_no_folder_of_this_machine_travels_with_the_bundle(exported: Exported) -> None:
    wanted, result, _ = exported
    text = result.bundle.contract.to_json() + result.bundle.members[DRIFT_MEMBER].decode()
    assert str(Path(wanted.record.data).parent) not in text
    assert result.bundle.contract.drift["data"] == "phantom"
    assert result.bundle.contract.drift["simulated_data"] is True


def test_drift_in_the_contract_is_what_anyone_can_measure_again(exported: Exported) -> None:
    wanted, _, path = exported
    bundle = read_bundle(path)
    session = open_session(bundle, threads=1)
    inputs = [pair.given("mr2ct") for pair in wanted.pairs]
    outputs = [session(image) for image in inputs]
    fp32 = [run_torch(wanted.checkpoint.generator, image) for image in inputs]
    again = quality(wanted.pairs, outputs, None, fp32, "mr2ct", wanted.record.output_intensity).summary
    told = bundle.contract.drift
    assert told["slices"] == len(inputs) == 4
    for group, figures in (("engine_drift", again.engine_drift), ("quality", again.quality)):
        assert set(told[group]) == set(figures)
        for name, value in figures.items():
            if value is None:
                assert told[group][name] is None, name
            else:
                assert told[group][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    assert told["drift"] == {}, "no teacher was at hand"
    assert told["teacher"] == {"measured": False, "reason": "no teacher was at hand"}
    detail = json.loads(bundle.members[DRIFT_MEMBER])
    assert [(one["case"], one["slice"]) for one in detail["per_slice"]] == [(p.case, p.slice) for p in wanted.pairs]
    assert {name: value for name, value in detail.items() if name != "per_slice"} == told


def test_golden_slices_hold_the_outputs_of_network_and_engine_and_no_patient(exported: Exported) -> None:
    wanted, result, _ = exported
    golden = read_golden(result.bundle)
    assert golden.inputs.shape == (2, 1, 64, 64)
    session = open_session(result.bundle, threads=1)
    for index, image in enumerate(golden.inputs):
        np.testing.assert_allclose(golden.fp32_outputs[index], run_torch(wanted.checkpoint.generator, image), atol=1e-5)
        np.testing.assert_allclose(golden.engine_outputs[index], session(image), atol=1e-4)
        assert np.ptp(image) > 1, "a head, not an empty slice"
        assert not any(np.array_equal(image, pair.mr) for pair in wanted.pairs if pair.mr is not None)
    assert result.bundle.selftest(threads=1).passed


def test_drift_against_the_teacher_is_measured_where_it_is_at_hand(
    request_for: Callable[..., ExportRequest], teacher: Checkpoint, tmp_path: Path
) -> None:
    wanted = request_for(precision="fp32")
    outputs = run_network(teacher, [pair.given("mr2ct") for pair in wanted.pairs])
    made = export(replace(wanted, teacher_outputs=outputs), tmp_path / "a.sccg").bundle.contract
    assert 10 < made.drift["drift"]["to_teacher_psnr_db"] < 60
    told = made.drift["teacher"]
    assert told["measured"] is True
    assert told["engine_psnr_db"] == made.drift["drift"]["to_teacher_psnr_db"]
    fp32 = run_network(wanted.checkpoint, [pair.given("mr2ct") for pair in wanted.pairs])
    ct = wanted.record.output_intensity
    again = quality(wanted.pairs, fp32, outputs, None, "mr2ct", ct).summary.drift["to_teacher_psnr_db"]
    assert told["fp32_psnr_db"] == pytest.approx(again, abs=1e-6)
    assert told["drop_db"] == pytest.approx(again - told["engine_psnr_db"], abs=1e-9)


def test_losing_more_of_the_teacher_than_was_allowed_refuses_only_where_that_was_asked_for(
    request_for: Callable[..., ExportRequest], teacher: Checkpoint, tmp_path: Path
) -> None:
    wanted = request_for("ort")
    outputs = run_network(teacher, [pair.given("mr2ct") for pair in wanted.pairs])
    out = tmp_path / "a.sccg"
    drop = export(replace(wanted, teacher_outputs=outputs), out).bundle.contract.drift["teacher"]["drop_db"]
    just = replace(wanted.budget, max_teacher_psnr_drop_db=drop + 0.01)
    export(replace(wanted, teacher_outputs=outputs, budget=just), out)
    less = replace(wanted.budget, max_teacher_psnr_drop_db=-50.0)
    before = sha256(out)
    with pytest.raises(DriftRefusedError, match=r"drop of to_teacher_psnr_db .* \(above -50\)"):
        export(replace(wanted, teacher_outputs=outputs, budget=less), out)
    assert sha256(out) == before
    with pytest.raises(InputError, match="say --teacher FILE"):
        export(replace(wanted, budget=less), out)


def test_the_same_request_gives_the_same_bytes(request_for: Callable[..., ExportRequest], tmp_path: Path) -> None:
    first, second = tmp_path / "first.sccg", tmp_path / "second.sccg"
    for path in (first, second):
        export(request_for("ort", "fp32"), path)
    assert sha256(first) == sha256(second)


def test_packing_the_same_content_gives_the_same_bytes(exported: Exported) -> None:
    _, result, path = exported
    assert pack(result.bundle.contract, result.bundle.members) == path.read_bytes()
    golden = read_golden(result.bundle)
    again = pack_golden(golden.inputs, golden.fp32_outputs, golden.engine_outputs)
    assert again == result.bundle.members[GOLDEN_MEMBER]


def test_a_refused_engine_leaves_the_earlier_bundle_and_nothing_else(
    request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    out = tmp_path / "model.sccg"
    export(request_for(precision="fp32"), out)
    before = sha256(out)
    with pytest.raises(DriftRefusedError, match=r"engine_to_fp32_psnr_db .* \(below 99\); worst case\d+/") as caught:
        export(request_for(budget=STRICT), out)
    assert sha256(out) == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.sccg"]
    assert len(caught.value.result.outputs) == 4


def test_a_bundle_that_fails_its_self_test_is_not_written(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "selftest", lambda bundle: replace(selftest(bundle, threads=1), passed=False))
    with pytest.raises(RefusedError, match="fails its own self-test"):
        export(request_for(precision="fp32"), tmp_path / "model.sccg")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(
    request_for: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bundle, "selftest", stop)
    with pytest.raises(KeyboardInterrupt):
        export(request_for(precision="fp32"), tmp_path / "model.sccg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_another_engine_size_works_and_both_engines_agree(
    precision: str, request_for: Callable[..., ExportRequest], student: Checkpoint, tmp_path: Path
) -> None:
    image = head(96, 128)
    expected = run_torch(student.generator, image)
    for target in ("openvino", "ort"):
        made = export(request_for(target, precision, size=(96, 128)), tmp_path / f"{target}.sccg")
        assert made.bundle.contract.engine_size == (96, 128)
        assert made.bundle.contract.trained_size == (64, 64)
        session = open_session(made.bundle, threads=1)
        assert session.description.size == (96, 128)
        rms = float(np.sqrt(np.mean((session(image) - expected) ** 2)))
        assert rms < (1e-4 if precision == "fp32" else 0.05)
        assert read_golden(made.bundle).inputs.shape[2:] == (96, 128)


def test_sizes_that_do_not_fit_the_stride_are_refused_by_name(
    request_for: Callable[..., ExportRequest], held_out: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "model.sccg"
    with pytest.raises(InputError, match="size 66x64: both sides must be multiples of 4"):
        export(request_for(size=(66, 64)), out)
    wanted = request_for()
    with pytest.raises(InputError, match="trained size 50x50"):
        export(replace(wanted, record=replace(wanted.record, trained_size=(50, 50)), size=(64, 64)), out)
    pair = replace(wanted.pairs[0], mr=head(62, 64), ct=head(62, 64))
    with pytest.raises(InputError, match=f"slice {pair.label} 62x64"):
        export(replace(wanted, pairs=[pair]), out)
    assert wanted.calibration is not None
    mixed = replace(wanted.calibration, images=[head(64, 64), head(32, 32)])
    with pytest.raises(InputError, match="calibration slices must have one size"):
        export(replace(wanted, calibration=mixed), out)
    with pytest.raises(InputError, match="needs held-out slices"):
        export(replace(wanted, pairs=[]), out)
    assert list(tmp_path.iterdir()) == []


def test_held_out_slices_may_have_another_size_than_the_engine(
    request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    wanted = request_for("openvino", "fp32")
    odd = replace(wanted.pairs[0], mr=head(48, 80), ct=head(48, 80, seed=1))
    made = export(replace(wanted, pairs=[*wanted.pairs, odd]), tmp_path / "model.sccg")
    assert made.outputs[-1].shape == (1, 48, 80)
    np.testing.assert_allclose(made.outputs[-1], made.fp32_outputs[-1], atol=1e-3)


def test_a_cyclegan_file_of_the_other_direction_exports(
    source: DataSource, request_for: Callable[..., ExportRequest], teacher: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "latest_net_G_ct2mr.pth"
    torch.save({f"module.{name}": value for name, value in teacher.generator.state_dict().items()}, path)
    loaded = load_checkpoint(path)
    assert loaded.record is None
    cases = source.splits["train"], source.splits["val"]
    images = [pair.given("ct2mr") for pair in source.pairs(cases[0])]
    record = TrainingRecord.of(source, "ct2mr", images, cases)
    made = export(
        replace(
            request_for(),
            checkpoint=loaded,
            record=record,
            calibration=choose_calibration(source, cases[0], "ct2mr", seed=0),
        ),
        tmp_path / "teacher.sccg",
    ).bundle.contract
    assert made.direction == "ct2mr"
    assert (made.input_intensity.modality, made.output_intensity.modality) == ("CT", "MR")
    assert made.student == "resnet-8x1-in"
    assert made.unknown == {"teacher_sha256": "the network is itself a teacher"}


@pytest.mark.slow
def test_real_slices_export_within_the_default_budget(real_data: Path, tmp_path: Path) -> None:
    """A real teacher through OpenVINO in FP32: nothing may change."""
    path = next(iter(sorted((real_data / "teachers").rglob("*mr2ct*.pth"))), None)
    if path is None:
        pytest.skip(f"no mr2ct teacher below {real_data / 'teachers'}")
    loaded, found = load_checkpoint(path), open_data(real_data / "data" / "aanlib")
    train, val = found.splits["train"], found.splits["val"]
    pairs = list(found.pairs(val))[::8][:2]
    images = [pair.given("mr2ct") for pair in found.pairs(train[:1])]
    wanted = ExportRequest(
        checkpoint=loaded,
        record=TrainingRecord.of(found, "mr2ct", images, (train, val)),
        target="openvino",
        precision="fp32",
        size=(256, 256),
        calibration=None,
        pairs=pairs,
        measured_on="aanlib",
        measured_on_simulated=False,
        budget=DriftBudget(min_mean_psnr_db=60, min_worst_psnr_db=60),
    )
    made = export(wanted, tmp_path / "real.sccg").bundle.contract
    assert made.output_intensity.kind == "display"
    assert made.simulated_data is False
