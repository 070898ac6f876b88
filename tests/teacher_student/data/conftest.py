"""Tiny data sets, made when a test asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sccg_teacher_student.data.phantom_dicom import write_phantom

WritePng = Callable[..., Path]


@pytest.fixture
def write_png() -> WritePng:
    """Write an array as PNG: uint8 or uint16 grey, (H, W, 3) RGB, (H, W, 4) with alpha."""

    def write(path: Path, values: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
        return path

    return write


@pytest.fixture
def png_cases(tmp_path: Path, write_png: WritePng) -> Callable[..., Path]:
    """Make ``ROOT/CASE/{mr,ct}/001.png, 002.png`` for the given case paths."""

    def make(*cases: str, slices: int = 2, root: str = "data") -> Path:
        for number, case in enumerate(cases):
            for modality in ("mr", "ct"):
                for index in range(slices):
                    values = np.full((8, 12), 10 * number + index, np.uint8)
                    write_png(tmp_path / root / case / modality / f"{index + 1:03d}.png", values)
        return tmp_path / root

    return make


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients, three slices of 64 x 64, with train, val and test. Read only."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "out", patients=3, slices=3, size=64, seed=5)
