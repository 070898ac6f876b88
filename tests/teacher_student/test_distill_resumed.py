"""Distillations that were interrupted: what they go on from, and what is no longer theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_runs import assert_same_student, run
from teacher_fakes import save_teacher

from sccg_runtime.errors import InputError
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.loop import Progress


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Report every step and interrupt after ``step``."""
    trainer_run = "sccg_teacher_student.distill.Trainer.run"
    from sccg_teacher_student.loop import Trainer

    plain = Trainer.run
    monkeypatch.setattr(trainer_run, lambda self, report: plain(self, report, every=1))

    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def interrupted(config: DistillConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run that was ended after three steps leaves in ``last.pt``."""
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, report=stop_at(3, monkeypatch))
    content: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    return content


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, tmp_path / "whole")
    interrupted(config, tmp_path / "parts", monkeypatch)
    assert not (tmp_path / "parts" / "student.safetensors").exists()
    run(replace(config, views=64), tmp_path / "meanwhile")  # lets the shared cache grow
    made = run(config, tmp_path / "parts", resume=True)
    assert made.facts["steps"] == 6
    assert made.facts["views"] == 16
    assert_same_student(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("key", "part", "added", "other"),
    [
        ("spec", None, "norm_once", {"width": 5}),
        ("record", "input_statistics", "background", {"data": "elsewhere"}),
    ],
)
def test_a_run_of_before_a_field_was_added_goes_on(
    config: DistillConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    part: str | None,
    added: str,
    other: dict[str, Any],
) -> None:
    folder = tmp_path / "parts"
    content = interrupted(config, folder, monkeypatch)
    before = json.loads(content[key])
    del (before if part is None else before[part])[added]
    for damaged in ("{", "[]", json.dumps(before | other), json.dumps(dict.fromkeys(before))):
        torch.save(content | {key: damaged}, folder / "last.pt")
        with pytest.raises(InputError, match=f"another run: its {key}"):
            run(config, folder, resume=True)
    torch.save(content | {key: json.dumps(before)}, folder / "last.pt")
    assert run(config, folder, resume=True).facts["steps"] == 6


def test_a_resume_with_another_teacher_or_other_data_is_refused(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    interrupted(config, folder, monkeypatch)
    save_teacher(Path(config.teacher), seed=2)
    with pytest.raises(InputError, match="another run: its record"):
        run(config, folder, resume=True)


def test_labels_of_another_engine_are_told_at_a_resume(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupted(config, folder, monkeypatch)
    labels = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps(labels | {"engine": "PyTorch on CUDA, float32"}))
    said = run(config, folder, resume=True).facts["said"]
    told = "its labels were made by PyTorch on CUDA, float32: the rest is learned from those of OpenVINO on the CPU"
    assert sum(line.startswith(told) for line in said) == 1


@pytest.mark.parametrize("content", [None, "", "{}", '{"views": 0}', '{"views": "many"}', "[1]"])
def test_a_resume_without_its_label_count_is_refused(
    config: DistillConfig, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "run"
    run(config, folder)
    (folder / "labels.json").unlink()
    if content is not None:
        (folder / "labels.json").write_text(content)
    with pytest.raises(InputError, match=r"labels\.json is missing or damaged"):
        run(config, folder, resume=True)
