"""The ablation's steps add one part each, and its table says what was measured and what was not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from sccg_compress.pages.ablation import STEPS, keep_figures, render_ablation
from sccg_compress.pages.phantom_sheets import drawn
from sccg_runtime.errors import InputError
from sccg_teacher_student.teaching import HybridWeights
from sccg_teacher_student.train_config import TrainConfig


def test_every_step_adds_a_part_and_the_last_has_all() -> None:
    made = [HybridWeights(**weights) for _, weights in STEPS.values()]
    parts = [(bool(one.adversarial), not one.uniform_pixels, bool(one.structure)) for one in made]
    assert parts == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        *[(True, True, True)] * 2,
    ]
    assert made[-1] == HybridWeights()


def test_figures_are_kept_without_folders_and_fill_the_table(tmp_path: Path) -> None:
    run, results = tmp_path / "run", tmp_path / "results"
    run.mkdir()
    config = TrainConfig(data="/secret/place", direction="mr2ct", unpaired_mr=("/secret/more",))
    (run / "train.json").write_text(config.to_json())
    last = {"step": 40, "psnr_db": 17.123456, "ssim": 0.7, "mae_u8": 12.0, "hf_ratio": None}
    (run / "run.json").write_text(json.dumps({"steps": 50, "teachers": {"mr2ct": {"last": last}}}))
    path = results / "ablation-2-adversarial.json"
    keep_figures(run, path)
    assert "secret" not in path.read_text()
    assert json.loads(path.read_text())["config"]["batch"] == 8
    lines = render_ablation(results).splitlines()
    assert lines[0].startswith("| objective | steps |")
    assert "| + adversarial | 50 | 17.12 | 0.7 | 12 |  |" in lines
    assert sum("not measured" in line for line in lines) == len(STEPS) - 1
    path.write_text("{")
    with pytest.raises(InputError, match=r"ablation-2-adversarial\.json: cannot be read as figures of a training"):
        render_ablation(results)


def test_the_sheet_shows_what_every_teacher_makes_of_the_phantom() -> None:
    def times(factor: float) -> nn.Module:
        network = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(network.weight, factor)
        return network

    alike, different = (
        np.asarray(Image.open(io.BytesIO(drawn({"one": times(1), "two": times(factor)})))) for factor in (1, -1)
    )
    assert alike.shape == different.shape
    changed = np.flatnonzero((alike != different).any(0)) / alike.shape[1]
    assert 0.5 < changed.min() < changed.max() < 0.75, "the third of four panels"
