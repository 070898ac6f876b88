"""A phantom of 64x64 pixels, and a teacher and a student that learned from it for a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sccg_teacher_student.data.phantom_dicom import write_phantom
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.data.splits import training_cases
from sccg_teacher_student.loop import Schedule, Trainer
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import GeneratorSpec, resnet_spec, student_spec
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.task import Part

SIDE = 64
TEACHER = resnet_spec(8, 1, "instance")
STUDENT = student_spec("s2d-16x2")


class SupervisedTask:
    """L1 between the network's output and the real image of the same level."""

    scaled = False

    def __init__(self, network: nn.Module, images: Tensor, targets: Tensor, batch: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._images, self._targets, self._batch = images, targets, batch

    def losses(self, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        """``total``: mean absolute difference on [-1, 1] of one batch."""
        chosen = torch.randint(len(self._images), (self._batch,), generator=generator)[part.of(self._batch)]
        images = self._images[chosen].contiguous(memory_format=torch.channels_last)
        return {"total": F.l1_loss(self.network(images), self._targets[chosen])}

    def trainable(self) -> list[nn.Parameter]:
        """Nothing beside the network."""
        return []

    def state(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""


def make_phantom(folder: Path) -> Path:
    """Five cases of four slices in ``train``, ``val`` and ``test``."""
    return write_phantom(folder, patients=5, slices=4, size=SIDE)


def train(spec: GeneratorSpec, data: Path, path: Path, *, teacher: Path | None = None, steps: int = 60) -> Path:
    """An mr2ct generator trained on the phantom for some steps, with its record, as ``.safetensors``."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    source = open_data(data)
    cases = training_cases(source, seed=0)
    pairs = list(source.pairs(cases[0]))
    images = [pair.mr for pair in pairs if pair.mr is not None]
    targets = [pair.ct for pair in pairs if pair.ct is not None]
    digest = None if teacher is None else load_checkpoint(teacher).sha256
    record = TrainingRecord.of(source, "mr2ct", images, cases, teacher_sha256=digest)
    given, wanted = (torch.from_numpy(np.stack(arrays)) for arrays in (images, targets))
    task = SupervisedTask(build_generator(spec), given, wanted, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(task, Schedule(steps=steps, seconds=None), 4, path.parent, {}, 0)
    trainer.run(lambda _: None)
    save_checkpoint(path, trainer.averaged(), spec, record)
    for made in ("last.pt", "log.csv"):
        (path.parent / made).unlink(missing_ok=True)
    return path


def fresh(name_or_spec: str | GeneratorSpec, seed: int = 0) -> torch.nn.Module:
    """An untrained generator in evaluation mode; batch norms have statistics of their own."""
    torch.manual_seed(seed)
    spec = student_spec(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    network = build_generator(spec)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.2)
    return network.eval().requires_grad_(False)


def run_torch(network: torch.nn.Module, image: FloatArray) -> FloatArray:
    """(1, H, W) -> (1, H, W)."""
    with torch.inference_mode():
        return np.array(network(torch.from_numpy(np.array(image))[None])[0].numpy(), np.float32)


def off_centre(name: str) -> nn.Module:
    """An untrained student whose norms do something, and read channels with means far from zero."""
    torch.manual_seed(0)
    network = build_generator(student_spec(name))
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.Conv2d) and module.bias is None:  # those ahead of a norm
            with torch.no_grad():
                module.weight.add_(0.2)
    return network


def head(rows: int, columns: int, seed: int = 0) -> FloatArray:
    """A textured ellipse on air, (1, rows, columns) float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    inside = ((y / rows - 0.5) / 0.4) ** 2 + ((x / columns - 0.5) / 0.35) ** 2 < 1
    return np.where(inside, rng.uniform(-0.5, 0.9, (rows, columns)), -1).astype(np.float32)[None]


def without_teacher_hash(checkpoint: Checkpoint) -> TrainingRecord:
    """The record of a checkpoint as that of a teacher."""
    assert checkpoint.record is not None
    return replace(checkpoint.record, teacher_sha256=None)
