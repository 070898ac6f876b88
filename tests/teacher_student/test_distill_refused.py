"""What distillation refuses, before anything that takes time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distill_runs import run
from teacher_fakes import save_teacher, training_record, write_slices

from sccg_runtime.errors import InputError
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.data.source import DataSource, open_data
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.features import Tap
from sccg_teacher_student.loss_weights import LossWeights


@pytest.fixture
def no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> None:
        raise AssertionError("refused only after the teacher was started")

    monkeypatch.setattr("sccg_teacher_student.distill.make_labeller", late)
    monkeypatch.setattr("sccg_teacher_student.bases.make_labeller", late)


@pytest.mark.usefixtures("no_labels")
@pytest.mark.parametrize("side", ["input_intensity", "output_intensity"])
def test_data_whose_grey_values_mean_something_else_than_the_teacher_s_are_refused(
    config: DistillConfig, tmp_path: Path, side: str
) -> None:
    plain, settings = load_checkpoint(Path(config.teacher)), open_data(Path(config.data)).settings
    other = training_record()
    known = {"input_intensity": settings.mr, "output_intensity": settings.ct} | {side: getattr(other, side)}
    save_checkpoint(tmp_path / "t.safetensors", plain.generator, plain.spec, training_record(**known))
    modality = "MR" if side == "input_intensity" else "CT"
    with pytest.raises(InputError, match=rf"t\.safetensors learned from {modality} of another intensity.*--intensity"):
        run(replace(config, teacher=str(tmp_path / "t.safetensors")), tmp_path / "run")


@pytest.mark.usefixtures("no_labels")
def test_a_reverse_teacher_of_the_wrong_direction_or_without_slices_is_refused(
    config: DistillConfig, tmp_path: Path
) -> None:
    write_slices(tmp_path / "ct" / "x", 2, (32, 48), seed=5)
    chosen = replace(config, unpaired=(str(tmp_path / "ct"),))
    other = str(save_teacher(tmp_path / "other_mr2ct.pth", seed=8))
    with pytest.raises(InputError, match=r"other_mr2ct\.pth is of mr2ct, too"):
        run(replace(chosen, reverse_teacher=other), tmp_path / "run")
    same = shutil.copy(config.teacher, tmp_path / "net.pth")  # no name says its direction
    with pytest.raises(InputError, match=r"net\.pth is the teacher itself"):
        run(replace(chosen, reverse_teacher=str(same)), tmp_path / "run")
    back = str(save_teacher(tmp_path / "net_ct2mr.pth", seed=8))
    with pytest.raises(InputError, match="--unpaired"):
        run(replace(config, reverse_teacher=back), tmp_path / "run")


@pytest.mark.usefixtures("no_labels")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "nowhere.pth"}, "no checkpoint at nowhere.pth"),
        ({"student": "unet"}, "'unet' is not known"),
        ({"device": "tpu"}, "'tpu' is none of"),
        ({"amp": "int4"}, "'int4' is none of"),
        ({"reverse_teacher": "nowhere.pth"}, "no checkpoint at nowhere.pth"),
        ({"critic": "nowhere.pth", "losses": LossWeights(adversarial=0.1)}, "no file nowhere.pth"),
        ({"taps": (Tap("model.77", "blocks.0"),), "losses": LossWeights(features=1)}, "no module model.77"),
        ({"taps": (Tap("model.1", "block"),), "losses": LossWeights(features=1)}, "no module block in S2DGenerator"),
        ({"taps": (Tap("model.1", "blocks"),), "losses": LossWeights(features=1)}, "container"),
        ({"unpaired": ("nowhere",), "reverse_teacher": None}, "no such folder"),
    ],
)
def test_bad_requests_are_told_before_anything_that_takes_time(
    config: DistillConfig, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run(replace(config, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_labels")
@pytest.mark.parametrize(
    ("where", "size", "words"),
    [
        ("train/a", (32, 50), "32x50 pixels: both sides must be multiples of 4"),
        ("train/a", (16, 16), "32 or more"),
        ("train/b", (48, 32), r"b/000 is 48x32 pixels, a/000 32x48"),
        ("val/d", (64, 48), "validation slice d/000 is 64x48"),
        ("val/d", (34, 50), "validation slice d/000 is 34x50"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    config: DistillConfig, tmp_path: Path, pairs_folder: Path, where: str, size: tuple[int, int], words: str
) -> None:
    for modality in ("mr", "ct"):
        shutil.rmtree(pairs_folder / where / modality)
        write_slices(pairs_folder / where / modality, 2, size, seed=3)
    with pytest.raises(InputError, match=words):
        run(config, tmp_path / "run")


@pytest.mark.usefixtures("no_labels")
def test_a_validation_case_of_another_spacing_is_refused(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataSource, "_spacing_of", lambda source, case: (1.0, 2.0 if case == "d" else 1.0))
    with pytest.raises(InputError, match=r"spacing of d is 1 x 2 mm.*resample all cases"):
        run(config, tmp_path / "run")


@pytest.mark.usefixtures("no_labels")
def test_unpaired_slices_of_another_size_are_refused(config: DistillConfig, tmp_path: Path) -> None:
    write_slices(tmp_path / "more" / "x", 1, (64, 64), seed=5)
    with pytest.raises(InputError, match="more/x/000 is 64x64 pixels"):
        run(replace(config, unpaired=(str(tmp_path / "more"),)), tmp_path / "run")
