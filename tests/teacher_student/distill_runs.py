"""A distillation of seconds, for the tests that run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from teacher_fakes import save_teacher

from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.distill import DistillResult, distill
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.reporter import Reporter


def tiny(tmp_path: Path, pairs_folder: Path) -> DistillConfig:
    """Six steps of a tiny student on six slices of 32x48, on the CPU."""
    return DistillConfig(
        teacher=str(save_teacher(tmp_path / "net_mr2ct.pth")),
        direction="mr2ct",
        data=str(pairs_folder),
        student="s2d-4x1",
        minutes=None,
        steps=6,
        views=8,
        batch=2,
        device="cpu",
    )


def run(config: DistillConfig, folder: Path, *, report: Any = None, resume: bool = False) -> DistillResult:
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    reporter = Reporter(say=said.append, training=report or (lambda progress: None))
    made = distill(config, open_data(Path(config.data)), folder, folder.parent / "cache", reporter, resume=resume)
    made.facts["said"] = said
    return made


def student_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "student.safetensors").generator.state_dict()


def assert_same_student(first: Path, second: Path) -> None:
    for key, tensor in student_tensors(first).items():
        assert torch.equal(tensor, student_tensors(second)[key]), key
