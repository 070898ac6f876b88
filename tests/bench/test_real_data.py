"""The masks and figures on real slices; needs ``SCCG_TEST_DATA``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sccg_bench.masks import head_mask
from sccg_bench.protocols import Pair
from sccg_bench.quality import blurred, quality
from sccg_bench.scale import to_u8

ROOT = os.environ.get("SCCG_TEST_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="SCCG_TEST_DATA is not set")


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return (np.asarray(image, np.float32) / np.float32(127.5) - 1)[None]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    case = Path(ROOT or "") / "data/aanlib/val/case33"
    names = sorted(path.name for path in (case / "mr").glob("*.png"))[::4]
    return [Pair("case33", name[:-4], load(case / "mr" / name), load(case / "ct" / name)) for name in names]


def test_the_head_of_a_real_ct_is_a_fifth_to_a_half_of_the_slice_without_holes(pairs: list[Pair]) -> None:
    for pair in pairs:
        mask = head_mask(to_u8(pair.ct))
        assert 0.1 < mask.mean() < 0.6, pair.slice


def test_a_blurred_teacher_looks_close_and_is_caught_by_its_detail(pairs: list[Pair]) -> None:
    teacher = [pair.ct for pair in pairs]
    found = quality(pairs, [blurred(image) for image in teacher], teacher, None, "mr2ct").summary
    assert found.drift["to_teacher_psnr_db"] > 22
    assert found.quality["hf_ratio"] < 0.6
    assert found.quality["iou_foreground"] > 0.95
