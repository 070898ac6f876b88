"""Distillation from end to end on tiny pictures: what is left, counted and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cyclegan_reference import reference
from distill_runs import assert_same_student, run, student_tensors
from PIL import Image
from teacher_fakes import save_teacher, training_record, write_slices

from sccg_bench.protocols import Pair
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_teacher_student import bases
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.distill import _compiled_folder, _compiles, _reload_and_run
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.features import Tap
from sccg_teacher_student.loss_weights import LossWeights
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import student_spec


def test_a_run_leaves_a_student_that_is_what_was_trained(config: DistillConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = run(config, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"labels.json", "log.csv", "last.pt", "student.safetensors", "run.json"}
    record = made.student.record
    assert record is not None
    assert (record.direction, record.trained_size, record.trained_spacing_mm) == ("mr2ct", (32, 48), (1.0, 1.0))
    assert (record.train_cases, record.val_cases) == (("a", "b", "c"), ("d",))
    assert (record.input_intensity.modality, record.output_intensity.kind) == ("MR", "display")
    assert record.teacher_sha256 == sha256(Path(config.teacher))
    assert not record.simulated_data
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["steps"], facts["views"], facts["student"]) == (6, 16, "s2d-4x1")
    assert facts["student_sha256"] == sha256(folder / "student.safetensors")
    last = load_checkpoint(folder / "last.pt").generator.state_dict()
    assert all(torch.equal(tensor, last[key]) for key, tensor in student_tensors(folder).items())
    assert [pair.case for pair in made.pairs] == ["d", "d"]
    for pair, ours, theirs in zip(made.pairs, made.student_outputs, made.teacher_outputs, strict=True):
        assert pair.mr is not None
        image = torch.from_numpy(pair.mr)[None]
        with torch.inference_mode():
            torch.testing.assert_close(made.student.generator(image)[0], torch.from_numpy(ours))
            teacher = reference()(image)[0].numpy()
        assert np.abs(theirs - teacher).mean() < 0.02


def test_the_same_config_gives_the_same_student(config: DistillConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "one")
    run(config, tmp_path / "two")
    assert_same_student(tmp_path / "one", tmp_path / "two")
    run(replace(config, seed=1), tmp_path / "three")
    first, third = student_tensors(tmp_path / "one"), student_tensors(tmp_path / "three")
    assert not torch.equal(first["stem.conv.weight"], third["stem.conv.weight"])


def test_weights_fade_as_asked_for(config: DistillConfig, tmp_path: Path) -> None:
    sizes = []
    for decay in (0.0, 0.9):
        folder = tmp_path / f"decay{decay:g}"
        run(replace(config, learning_rate=0.05, weight_decay=decay), folder)
        sizes.append(sum(float(tensor.square().sum()) for tensor in student_tensors(folder).values()))
    assert sizes[1] < 0.98 * sizes[0]


def test_labels_of_a_longer_run_do_not_change_a_shorter_one(config: DistillConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "before")
    run(replace(config, views=40), tmp_path / "longer")
    run(config, tmp_path / "after")
    assert_same_student(tmp_path / "before", tmp_path / "after")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_labels_are_made_anew_when_pictures_change_in_place(
    config: DistillConfig, tmp_path: Path, pairs_folder: Path
) -> None:
    run(config, tmp_path / "one")
    write_slices(pairs_folder / "train" / "a" / "mr", 2, (32, 48), seed=999)
    run(config, tmp_path / "two")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_unpaired_folders_add_slices(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 3, (32, 48), seed=5)
    write_slices(tmp_path / "more" / "y", 1, (32, 48), seed=6)
    made = run(replace(config, unpaired=(str(tmp_path / "more"),)), tmp_path / "run")
    assert any("10 input slices" in line and "4 unpaired" in line for line in made.facts["said"])
    assert made.student.record is not None
    assert made.student.record.unpaired == (str(tmp_path / "more"),)


def test_a_student_learns_at_the_size_that_its_teacher_saw(config: DistillConfig, tmp_path: Path) -> None:
    plain = load_checkpoint(Path(config.teacher))
    settings = open_data(Path(config.data)).settings
    known = {"input_intensity": settings.mr, "output_intensity": settings.ct}
    record = training_record(trained_size=(64, 96), trained_spacing_mm=(0.5, 0.5), resampled=True, **known)
    save_checkpoint(tmp_path / "teacher.safetensors", plain.generator, plain.spec, record)
    write_slices(tmp_path / "unpaired" / "u", 2, (16, 24), seed=7)
    asked = replace(
        config, teacher=str(tmp_path / "teacher.safetensors"), unpaired=(str(tmp_path / "unpaired"),), steps=1
    )
    made = run(asked, tmp_path / "run")
    learned = made.student.record
    assert learned is not None
    assert (learned.trained_size, learned.trained_spacing_mm, learned.resampled) == ((64, 96), (0.5, 0.5), True)
    assert {output.shape for output in made.student_outputs} == {(1, 64, 96)}


def test_labels_of_a_run_without_a_gauge_are_not_those_of_one_with(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 6, (32, 48), seed=5)
    chosen = replace(config, unpaired=(str(tmp_path / "more"),), steps=1)
    run(replace(chosen, detail=0.0), tmp_path / "without")
    run(chosen, tmp_path / "with")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the kept-out case is among the views of one only"


def test_more_views_than_the_steps_use_are_told(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "a smaller --views leaves more time for steps"
    timed = replace(config, steps=None, minutes=0.1)
    monkeypatch.setattr("sccg_teacher_student.distill.FEW_DRAWS", 1e6)
    made = run(replace(timed, views=None), tmp_path / "many").facts
    draws = made["steps"] * config.batch / made["views"]
    assert f"each labelled view was drawn {draws:.1f} times: {told}" in made["said"]
    monkeypatch.setattr("sccg_teacher_student.distill.FEW_DRAWS", draws / 1e6)
    enough = run(replace(timed, views=None), tmp_path / "enough").facts["said"]
    assert not any(line.endswith(told) for line in enough)
    monkeypatch.setattr("sccg_teacher_student.distill.FEW_DRAWS", 1e6)
    few = run(replace(timed, views=16), tmp_path / "few").facts["said"]
    assert not any(line.endswith(told) for line in few), "that many were asked for"


def test_fewer_views_than_asked_for_are_told(config: DistillConfig, tmp_path: Path) -> None:
    said = run(replace(config, views=4096, steps=None, minutes=0.01), tmp_path / "run").facts["said"]
    assert any(line.endswith("instead of 4096 views: no more fit into the minutes") for line in said)
    assert any("fewer than 4 acquired cases" in line for line in said), "of --detail, which then does nothing"


def test_more_views_than_the_cache_may_hold_are_refused_before_any_is_made(
    config: DistillConfig, tmp_path: Path
) -> None:
    most = 64 * 3 * 32 * 48 * 2 / 2**30
    with pytest.raises(InputError, match=r"65 views take .* GiB, more than --cache-gib"):
        run(replace(config, views=65, cache_gib=most, steps=1), tmp_path / "run")
    assert not list(tmp_path.glob("cache/*/*.npy"))
    assert run(replace(config, views=64, cache_gib=most, steps=1), tmp_path / "again").facts["views"] == 64


def test_a_reference_that_no_slice_has_is_refused(config: DistillConfig, tmp_path: Path) -> None:
    for folder in Path(config.data).rglob("ct"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="--weight-reference needs real images of the output modality"):
        run(replace(config, losses=LossWeights(reference=0.1)), tmp_path / "run")


def test_blank_slices_are_refused(config: DistillConfig, tmp_path: Path) -> None:
    for path in Path(config.data).rglob("*.png"):
        Image.fromarray(np.zeros((32, 48), np.uint8)).save(path)
    with pytest.raises(InputError, match="every slice to learn from is blank"):
        run(config, tmp_path / "run")


def test_only_some_slices_of_a_student_read_back_are_compared(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []
    monkeypatch.setattr("sccg_teacher_student.distill.COMPARED", 1)
    monkeypatch.setattr("sccg_teacher_student.distill.np.allclose", lambda *given, **_: compared.append(given) or True)
    assert len(run(config, tmp_path / "run").pairs) == 2
    assert len(compared) == 1


def test_a_kept_out_case_gauges_the_student_and_gives_no_view(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 6, (32, 48), seed=5)
    made = run(replace(config, unpaired=(str(tmp_path / "more"),), views=32), tmp_path / "run")
    assert any(line.startswith("more/x is kept out") for line in made.facts["said"])
    assert made.facts["gauge"]["case"] == "more/x"
    assert made.facts["gauge"]["steps"] == 3, "the second half of six"
    learned = next((tmp_path / "cache").iterdir())
    views = np.concatenate([np.load(path) for path in sorted(learned.glob("*.npy"))])[:, 0].astype(np.float32)
    kept = [np.asarray(Image.open(path), np.float32) for path in sorted((tmp_path / "more" / "x").glob("*.png"))]
    assert min(float(np.abs(view - (image / 127.5 - 1)).mean()) for view in views for image in kept) > 0.01
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert header.endswith("gauge_ratio,gauge_gain")


def test_a_reverse_teacher_makes_inputs_of_unpaired_outputs(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "ct" / "x", 2, (32, 48), seed=5)
    back = save_teacher(tmp_path / "net_ct2mr.pth", seed=8)
    chosen = replace(config, unpaired=(str(tmp_path / "ct"),), reverse_teacher=str(back))
    source = open_data(Path(config.data))
    options: dict[str, Any] = {"strides": (4,), "device": torch.device("cpu"), "say": print}
    found = bases.collect_bases(
        source, ("a",), "mr2ct", [tmp_path / "ct"], None, reverse=load_checkpoint(back), **options
    )
    assert (len(found.slices), found.unpaired) == (4, 2)
    image, made_from = found.slices[-1].load()
    assert made_from is None
    plain = bases.collect_bases(source, ("a",), "mr2ct", [tmp_path / "ct"], None, reverse=None, **options)
    with torch.inference_mode():
        expected = reference(8)(torch.from_numpy(plain.slices[-1].load()[0])[None, None])[0, 0].numpy()
    assert np.abs(image - expected).mean() < 0.02
    made = run(chosen, tmp_path / "run")
    assert made.facts["steps"] == 6
    assert not any("reverse teacher" in line for line in made.facts["said"])
    alone = run(config, tmp_path / "alone").student.record
    assert made.student.record is not None
    assert alone is not None
    assert made.student.record.input_statistics == alone.input_statistics, "of acquired slices alone"
    kept = load_checkpoint(back)
    ours = {"input_intensity": source.settings.ct, "output_intensity": source.settings.mr}
    record = training_record(direction="ct2mr", trained_size=(64, 64), trained_spacing_mm=None, **ours)
    save_checkpoint(tmp_path / "other.safetensors", kept.generator, kept.spec, record)
    other = replace(chosen, reverse_teacher=str(tmp_path / "other.safetensors"), steps=1)
    told = run(other, tmp_path / "other").facts["said"]
    assert "other.safetensors learned at 64x64 pixels; slices of 32x48: judge with care" in told
    save_checkpoint(tmp_path / "other.safetensors", kept.generator, kept.spec, training_record(direction="ct2mr"))
    with pytest.raises(InputError, match=r"other\.safetensors learned from (CT|MR) of another intensity"):
        run(other, tmp_path / "wrong")


def test_a_student_of_a_teacher_of_simulated_data_is_called_simulated(config: DistillConfig, tmp_path: Path) -> None:
    source, kept = open_data(Path(config.data)), load_checkpoint(Path(config.teacher))
    ours = {"input_intensity": source.settings.mr, "output_intensity": source.settings.ct}
    for simulated in (False, True):
        record, teacher = training_record(simulated_data=simulated, **ours), tmp_path / f"{simulated}.safetensors"
        save_checkpoint(teacher, kept.generator, kept.spec, record)
        made = run(replace(config, teacher=str(teacher), steps=1), tmp_path / f"run{simulated}")
        assert made.student.record is not None
        assert made.student.record.simulated_data is simulated
        assert any("learned from simulated data" in line for line in made.facts["said"]) is simulated


def test_data_of_another_scale_than_the_teachers_are_told(config: DistillConfig, tmp_path: Path) -> None:
    source, kept = open_data(Path(config.data)), load_checkpoint(Path(config.teacher))
    ours = {"input_intensity": source.settings.mr, "output_intensity": source.settings.ct}
    for spacing, told in (((1.0, 1.0), []), ((2.0, 2.0), [True])):
        record = training_record(trained_spacing_mm=spacing, **ours)
        save_checkpoint(tmp_path / "scaled.safetensors", kept.generator, kept.spec, record)
        made = run(
            replace(config, teacher=str(tmp_path / "scaled.safetensors"), steps=1), tmp_path / f"run{spacing[0]}"
        )
        line = "scaled.safetensors learned at 2 x 2 mm per pixel; slices of 1 x 1 mm: judge with care"
        assert [True for said in made.facts["said"] if said == line] == told


def test_slices_that_the_losses_cannot_halve_twice_are_refused_before_labels_are_made(
    config: DistillConfig, tmp_path: Path
) -> None:
    write_slices(tmp_path / "odd" / "a" / "mr", 2, (34, 46), seed=1)
    write_slices(tmp_path / "odd" / "a" / "ct", 2, (34, 46), seed=2)
    teacher = save_teacher(tmp_path / "shallow_mr2ct.pth", n_downsampling=0)
    odd = replace(config, data=str(tmp_path / "odd"), teacher=str(teacher), student="s2d-4x1-f2")
    with pytest.raises(InputError, match="both sides must be multiples of 4"):
        run(odd, tmp_path / "run")


@pytest.mark.parametrize("student", ["resnet-4x1", "s2d-4x1-plain"])
def test_other_students_and_ct2mr_run(config: DistillConfig, tmp_path: Path, student: str) -> None:
    made = run(replace(config, student=student, direction="ct2mr"), tmp_path / "run")
    assert made.student.record is not None
    assert made.student.record.input_intensity.modality == "CT"
    assert made.student.spec.name.startswith(student)


def test_all_optional_losses_run_together(config: DistillConfig, tmp_path: Path) -> None:
    losses = LossWeights(reference=0.1, adversarial=0.1, features=0.1)
    chosen = replace(config, losses=losses, taps=(Tap("model.10", "blocks.0"),), amp="bf16", steps=2)
    run(chosen, tmp_path / "run")
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert {"reference", "adversarial", "features"} <= set(header.split(","))


def test_minutes_end_the_run_and_labels_count(config: DistillConfig, tmp_path: Path) -> None:
    made = run(replace(config, minutes=0.06, steps=None, views=None), tmp_path / "run")
    assert made.facts["steps"] > 0
    assert made.facts["training_seconds"] < 6


def test_one_case_trains_and_is_its_own_picture(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "one" / "a" / "mr", 2, (32, 48), 1)
    write_slices(tmp_path / "one" / "a" / "ct", 2, (32, 48), 2)
    made = run(replace(config, data=str(tmp_path / "one")), tmp_path / "run")
    assert [pair.case for pair in made.pairs] == ["a", "a"]
    assert any("validation: none" in line for line in made.facts["said"])


@pytest.mark.parametrize(
    ("length", "compiled"),
    [
        ({"steps": 999}, False),
        ({"steps": 1000}, True),
        ({"steps": None, "minutes": 4.9}, False),
        ({"steps": None, "minutes": 5.0}, True),
    ],
)
def test_only_long_runs_on_a_cpu_are_compiled(config: DistillConfig, length: dict[str, Any], compiled: bool) -> None:
    long = replace(config, **length)
    assert _compiles(long, torch.device("cpu")) is compiled
    assert not _compiles(long, torch.device("cuda"))
    tapped = replace(long, taps=(Tap("model.10", "blocks.0"),), losses=LossWeights(features=1.0))
    assert not _compiles(tapped, torch.device("cpu"))


def test_a_student_that_is_read_back_unchanged_is_not_refused_for_a_blank_slice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = student_spec("resnet-16x9-in")
    student = build_generator(spec).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_checkpoint(tmp_path / "student.safetensors", student, spec, training_record())
    blank = Pair(case="a", slice="0", mr=np.full((1, 64, 64), -1, np.float32), ct=None)
    (output,) = _reload_and_run(tmp_path / "student.safetensors", student, [blank], "mr2ct")
    assert np.isfinite(output).all()


def test_a_path_that_a_compiler_would_misread_is_not_given_to_it(tmp_path: Path) -> None:
    assert _compiled_folder(tmp_path) == str(tmp_path / "compiled")
    other = Path(_compiled_folder(tmp_path / "my runs"))
    assert other.is_dir()
    assert " " not in str(other)
    other.rmdir()
