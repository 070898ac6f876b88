"""A spot that only one of two slices shows is found, with its place, its sign and its depth."""

from __future__ import annotations

import bench_fakes as fakes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccg_bench.masks import dilated, head_mask
from sccg_bench.metrics import psnr_db
from sccg_bench.protocols import Pair
from sccg_bench.quality import quality
from sccg_bench.scale import to_u8
from sccg_bench.spot import SHARE, largest_spot

TEACHER = to_u8(fakes.head(256, seed=1))
HEAD = dilated(head_mask(TEACHER))


def by_loop(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float | None:
    side = max(1, min(image.shape) // SHARE)
    found = None
    for row in range(image.shape[0] - side + 1):
        for column in range(image.shape[1] - side + 1):
            window = np.s_[row : row + side, column : column + side]
            if mask[window].all():
                mean = sum((image - other)[window].ravel().tolist()) / side**2
                found = mean if found is None or abs(mean) > abs(found) else found
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 48), (70, 64), (96, 96)]), st.floats(0, 1))
def test_it_is_what_a_plain_loop_finds(seed: int, shape: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(seed)
    image, other = rng.uniform(0, 255, (2, *shape))
    mask = np.hypot(*np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]) < 1.5 * share
    found, expected = largest_spot(image, other, mask), by_loop(image, other, mask)
    assert (found is None) == (expected is None)
    if found is not None:
        window = np.s_[found.row : found.row + found.side_px, found.column : found.column + found.side_px]
        assert abs(found.difference_u8) == pytest.approx(abs(expected or 0))
        assert found.difference_u8 == pytest.approx((image - other)[window].mean())
        assert mask[window].all()


@pytest.mark.parametrize("depth", [-40.0, 40.0])
def test_a_lesion_that_no_psnr_sees_is_found_in_noise(depth: float) -> None:
    """8x8 px of 40 grey levels under noise of 8: PSNR falls by less than 0.2 dB, the spot stands out."""
    noisy = TEACHER + np.random.default_rng(0).normal(0, 8, TEACHER.shape)
    invented = noisy.copy()
    invented[120:128, 90:98] += depth
    before, after = largest_spot(noisy, TEACHER, HEAD), largest_spot(invented, TEACHER, HEAD)
    assert before is not None
    assert after is not None
    assert (after.side_px, np.hypot(after.row - 120, after.column - 90) <= 2) == (8, True)
    assert after.difference_u8 == pytest.approx(depth, abs=5)
    assert abs(before.difference_u8) < 6
    assert psnr_db(noisy, TEACHER)[0] - psnr_db(invented, TEACHER)[0] < 0.2


def test_outside_the_head_and_in_a_mask_too_small_there_is_none() -> None:
    bright = TEACHER.copy()
    bright[:20, :20] += 99
    assert largest_spot(bright, TEACHER, HEAD) == largest_spot(TEACHER, TEACHER, HEAD)
    thin = np.zeros_like(HEAD)
    thin[:, 100:107] = True
    assert largest_spot(bright, TEACHER, thin) is None


def test_the_slice_with_the_largest_is_named_and_every_slice_has_its_own() -> None:
    pairs = fakes.pairs(cases=1, slices=3, size=128)
    teacher = [pair.ct for pair in pairs if pair.ct is not None]
    outputs = [image - np.float32(0.02) for image in teacher]
    outputs[1] = teacher[1].copy()
    outputs[1][0, 60:64, 50:54] -= np.float32(0.4)
    found = quality(pairs, outputs, teacher, None, "mr2ct")
    assert found.landmarks["spot"].slice == "001"
    assert found.landmarks["worst"].slice != "001", "its PSNR is the best of the three"
    assert found.slices[1].to_dict()["spot"] == {
        "row": 60,
        "column": 50,
        "side_px": 4,
        "difference_u8": pytest.approx(-51, abs=0.01),
    }
    assert found.summary.drift["to_teacher_spot_u8"] == pytest.approx((2.55 + 51 + 2.55) / 3, abs=0.01)
    alone = quality([Pair("a", "1", teacher[0], teacher[0])], outputs[:1], None, None, "mr2ct")
    assert alone.slices[0].to_dict()["spot"] is None
    assert "spot" not in alone.landmarks
