"""A teacher's training that goes wrong leaves a state that goes on, and says what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teacher_fakes import little_room
from teacher_runs import LIGHT, run, tiny

from sccg_bench.report.sheets import grey_png
from sccg_runtime.errors import CheckpointError, InputError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student import train as training
from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.extractors import MindFeatures
from sccg_teacher_student.loop import Progress, Trainer
from sccg_teacher_student.teaching_slices import TeachingSlices
from sccg_teacher_student.train_config import TrainConfig


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips take longer to draw than these teachers to learn."""
    monkeypatch.setattr("sccg_teacher_student.validation.strip_png", lambda _, output, *__: grey_png(output))


@pytest.fixture
def config(pairs_folder: Path) -> TrainConfig:
    return tiny(pairs_folder)


def test_a_validation_that_the_disk_has_no_room_for_is_made_again(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    short = replace(config, losses=LIGHT, steps=2, validate_every=1)
    with monkeypatch.context() as patched:
        patched.setattr("sccg_teacher_student.validation.write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            run(short, tmp_path / "run")
    assert not (tmp_path / "run" / "validation_mr2ct.csv").exists()
    again = run(short, tmp_path / "run", resume=True).facts["teachers"]["mr2ct"]
    assert again == run(short, tmp_path / "whole").facts["teachers"]["mr2ct"]


def test_a_run_that_fails_at_once_can_go_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("step 0: the loss is not finite")

    short = replace(config, losses=LIGHT, steps=1)
    with monkeypatch.context() as patched:
        patched.setattr("sccg_teacher_student.train.TeacherTask.losses", fail)
        with pytest.raises(InputError):
            run(short, tmp_path / "run")
    assert run(short, tmp_path / "run", resume=True).facts["steps"] == 1


def test_a_run_of_another_configuration_is_not_resumed(config: TrainConfig, tmp_path: Path) -> None:
    run(replace(config, losses=LIGHT, steps=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match="another run: its spec"):
        run(replace(config, losses=LIGHT, steps=1, generator="resnet-4x2-in"), tmp_path / "run", resume=True)


def test_other_structure_features_do_not_go_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights of VGG16, too: they have another name in the run's identity."""
    short, folder = replace(config, steps=1, losses=replace(LIGHT, structure=1.0)), tmp_path / "run"
    run(short, folder)
    with monkeypatch.context() as patched:
        patched.setattr("sccg_teacher_student.teaching.make_extractor", lambda *_: (MindFeatures(), "another VGG16"))
        with pytest.raises(CheckpointError, match="another run: its structure_features"):
            run(short, folder, resume=True)
    content = torch.load(folder / "last.pt", weights_only=True)
    assert content.pop("structure_features").startswith("MIND")
    torch.save(content, folder / "last.pt")
    assert run(short, folder, resume=True).facts["steps"] == 1, "a run that was begun before this was kept goes on"


def test_a_full_disk_is_told_and_leaves_the_last_good_state(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, losses=LIGHT, steps=2, validate_every=1000)
    run(short, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with little_room(len(before) // 2), pytest.raises(OSError, match="too large"):
        run(short, tmp_path / "run")
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_slice_that_is_not_finite_is_named_and_the_last_good_state_goes_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of six slices, from the end of the third step on: one of the next three steps draws it."""
    folder, collect, plain = tmp_path / "run", training._collect, Trainer.run
    broken = False

    def spoiled(*given: Any) -> tuple[TeachingSlices, tuple[int, int]]:
        slices, size = collect(*given)
        good = slices.pairs[3]

        def load() -> tuple[FloatArray, FloatArray | None]:
            mr, ct = good.load()
            return (mr * np.float32(np.nan) if broken else mr), ct

        pairs = [replace(base, load=load) if base is good else base for base in slices.pairs]
        return replace(slices, pairs=pairs), size

    def break_it(progress: Progress) -> None:
        nonlocal broken
        broken = progress.step >= 3

    def often(self: Trainer, report: Any, **options: Any) -> None:
        plain(self, report, every=1, save_seconds=0, **options)

    with monkeypatch.context() as patched:
        patched.setattr(training, "_collect", spoiled)
        patched.setattr(Trainer, "run", often)
        with pytest.raises(InputError, match=r"the loss is not finite \(.*nan.*\) with b/001; .*last\.pt") as caught:
            run(config, folder, report=break_it)
    assert "\n" not in str(caught.value)
    content = torch.load(folder / "last.pt", weights_only=True)
    assert 3 <= content["step"] < 6
    states = [content["network"], content["average"], *content["beside"].values()]
    assert all(torch.isfinite(tensor).all() for state in states for tensor in state.values())
    assert load_checkpoint(folder / "last.pt").spec.width == 4
    assert run(config, folder, resume=True).facts["steps"] == config.steps
