"""Helpers live beside the tests; every test computes on one thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from sccg_teacher_student.distill_config import DistillConfig

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in ("distill", "train"):
        monkeypatch.setattr(f"sccg_teacher_student.{module}.use_cores", lambda: None)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    """Three cases in ``train``, one in ``val``: two slices of 32x48 each, MR and CT."""
    from teacher_fakes import write_slices

    root = tmp_path / "pairs"
    for number, case in enumerate(("train/a", "train/b", "train/c", "val/d")):
        for modality in ("mr", "ct"):
            write_slices(root / case / modality, 2, (32, 48), seed=10 * number + len(modality) + ord(modality[0]))
    (root / "sccg.toml").write_text(
        'spacing_mm = [1.0, 1.0]\n[mr]\nkind = "percentile"\npercentile = 99.5\nforeground_above = 0.0588\n'
        'level = 0.9216\n[ct]\nkind = "display"\n',
        encoding="utf-8",
    )
    return root


@pytest.fixture
def config(tmp_path: Path, pairs_folder: Path) -> DistillConfig:
    """Of a distillation of seconds."""
    from distill_runs import tiny

    return tiny(tmp_path, pairs_folder)
