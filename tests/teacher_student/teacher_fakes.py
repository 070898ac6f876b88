"""Small checkpoints, records and bases for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from cyclegan_reference import reference
from PIL import Image

from sccg_runtime.intensity import FloatArray, Intensity
from sccg_runtime.statistics import input_statistics
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.views import Base


def picture(seed: int = 0, size: tuple[int, int] = (32, 48)) -> FloatArray:
    """A textured ellipse on background -1, (H, W) float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = ((rows / size[0] - 0.5) / 0.4) ** 2 + ((columns / size[1] - 0.5) / 0.35) ** 2 < 1
    return np.where(inside, rng.uniform(-0.5, 0.9, size), -1).astype(np.float32)


def bases(count: int = 3, *, paired: bool = True, size: tuple[int, int] = (32, 48)) -> list[Base]:
    """Slices of cases ``c0``, ``c0``, ``c1``, ``c1``, ...; the reference is the negative of the input."""

    def load(seed: int) -> tuple[FloatArray, FloatArray | None]:
        image = picture(seed, size)
        return image, -image if paired else None

    return [Base(f"c{number // 2}", f"{number}", lambda number=number: load(number)) for number in range(count)]


def training_record(**changes: object) -> TrainingRecord:
    mr = Intensity(modality="MR", kind="percentile", percentile=99.5, foreground_above=0.1, level=0.9)
    values: dict[str, object] = {
        "direction": "mr2ct",
        "input_intensity": mr,
        "output_intensity": Intensity(modality="CT", kind="hu", low_hu=-1024.0, high_hu=2000.0),
        "trained_size": (32, 48),
        "trained_spacing_mm": (1.0, 0.5),
        "simulated_data": True,
        "teacher_sha256": "ab" * 32,
        "input_statistics": input_statistics([picture()[None]]),
        "data": "/data",
        "unpaired": ("/more",),
        "train_cases": ("a", "b"),
        "val_cases": ("c",),
    }
    return TrainingRecord(**(values | changes))  # type: ignore[arg-type]


def save_teacher(path: Path, seed: int = 1, **options: object) -> Path:
    """A tiny CycleGAN generator as that repository saves it."""
    torch.save(reference(seed, **options).state_dict(), path)
    return path


def write_slices(folder: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """``count`` grey pictures of a bright ellipse with texture on black."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        radius = 0.3 + 0.03 * number
        distance = ((rows / size[0] - 0.5) / radius) ** 2 + ((columns / size[1] - 0.5) / (0.8 * radius)) ** 2
        values = np.where(distance < 1, rng.integers(60, 220, size), 0).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{number:03d}.png")


@contextmanager
def few_files(count: int) -> Iterator[None]:
    """Let this process open no more than ``count`` files beside those that it has open."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the number of open files")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/dev/fd").iterdir()}
    free = [number for number in range(len(taken) + count) if number not in taken]  # those above stay open
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count - 1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def little_room(size_bytes: int) -> Iterator[None]:
    """While open, no file can grow beyond ``size_bytes``: what a full disk does, with another errno."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
