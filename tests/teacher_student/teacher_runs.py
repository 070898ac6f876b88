"""Training of a tiny teacher, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.reporter import Reporter
from sccg_teacher_student.teaching import HybridWeights
from sccg_teacher_student.train import TrainResult, train
from sccg_teacher_student.train_config import TrainConfig

LIGHT = HybridWeights(adversarial=0, structure=0, uniform_pixels=True)


def tiny(pairs_folder: Path) -> TrainConfig:
    """Ten steps of a tiny teacher with every loss of one direction, on six pairs of 32x48, on the CPU."""
    return TrainConfig(
        data=str(pairs_folder),
        direction="mr2ct",
        size=None,
        generator="resnet-4x1-in",
        epochs=None,
        steps=10,
        batch=2,
        structure_features="mind",
        validate_every=5,
        device="cpu",
        amp="off",
    )


def run(config: TrainConfig, folder: Path, *, report: Any = None, resume: bool = False) -> TrainResult:
    """Train; ``said`` is added to the facts."""
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    reporter = Reporter(say=said.append, training=report or (lambda progress: None))
    made = train(config, open_data(Path(config.data)), folder, reporter, resume=resume)
    assert made is not None
    made.facts["said"] = said
    return made
