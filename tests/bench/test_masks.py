"""Masks are what METRICS says, and never an exception."""

from __future__ import annotations

import bench_fakes as fakes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sccg_bench import masks
from sccg_bench.scale import hu_to_u8, to_u8
from sccg_runtime.intensity import Intensity, linear_to_unit


def test_scale_maps_minus_one_and_one_onto_0_and_255_without_rounding_or_clipping() -> None:
    values = np.array([[[-1, 0, 1, 1.2, 0.001]]], np.float32)
    np.testing.assert_allclose(to_u8(values)[0], [0, 127.5, 255, 280.5, 127.6275], atol=1e-4)


def test_head_mask_is_the_filled_largest_part() -> None:
    image = np.zeros((64, 64))
    image[10:50, 10:50] = 200
    image[20:30, 20:30] = 0  # a ventricle: a hole that is filled
    image[60:62, 60:62] = 200  # a head holder: another part
    mask = masks.head_mask(image)
    expected = np.zeros((64, 64), bool)
    expected[10:50, 10:50] = True
    np.testing.assert_array_equal(mask, expected)


def test_dilation_is_a_disc_of_three_pixels() -> None:
    mask = np.zeros((15, 15), bool)
    mask[7, 7] = True
    grown = masks.dilated(mask)
    rows, columns = np.nonzero(grown)
    assert np.hypot(rows - 7, columns - 7).max() == 3
    assert grown.sum() == sum(np.hypot(i, j) <= 3 for i in range(-7, 8) for j in range(-7, 8))


@pytest.mark.parametrize("value", [0.0, 127.5, 255.0, np.nan])
def test_a_constant_slice_has_no_head(value: float) -> None:
    image = np.full((32, 32), value)
    assert not masks.head_mask(image).any()
    assert not masks.dilated(masks.head_mask(image)).any()


def test_an_empty_union_counts_as_one() -> None:
    nothing = np.zeros((4, 4), bool)
    some = nothing.copy()
    some[:2] = True
    other = nothing.copy()
    other[1:3] = True
    assert masks.overlap(nothing, nothing) == (1.0, True)
    assert masks.overlap(some, nothing) == (0.0, False)
    assert masks.overlap(some, other) == (pytest.approx(1 / 3), False)


def test_tissue_levels_follow_the_hu_window_and_stay_grey_without_one() -> None:
    hu = Intensity(modality="CT", kind="hu", low_hu=-1000, high_hu=1550)
    levels = masks.TissueLevels.of(hu)
    assert (levels.soft, levels.bone) == (pytest.approx(85.0, abs=0.01), pytest.approx(125.0, abs=0.01))
    display = Intensity(modality="CT", kind="display", window_center_hu=40, window_width_hu=80)
    assert masks.TissueLevels.of(display) == masks.TissueLevels(60, 200) == masks.TissueLevels.of(None)
    assert hu_to_u8(-1000, (-1000, 1550)) == 0


@given(low=st.integers(-2048, -200), high=st.integers(300, 8000))
def test_a_voxel_of_250_hu_is_bone_and_one_of_249_is_not(low: int, high: int) -> None:
    ct = Intensity(modality="CT", kind="hu", low_hu=low, high_hu=high)
    stored = np.array([[-151, -150, 249, 250]], np.int16)
    slice_ = to_u8(linear_to_unit(stored, low, high))
    levels = masks.TissueLevels.of(ct)
    np.testing.assert_array_equal(masks.bone_mask(slice_, levels), [[False, False, False, True]])
    np.testing.assert_array_equal(masks.air_mask(slice_, levels), [[True, False, False, False]])


def test_bone_and_soft_tissue_of_a_head() -> None:
    ct = to_u8(fakes.head(64))
    levels = masks.TissueLevels()
    head = masks.head_mask(ct)
    bone, soft = masks.bone_mask(ct, levels), masks.soft_mask(ct, levels, head)
    assert not (bone & soft).any()
    assert (soft <= head).all()
    assert bone.sum() == (ct > 240).sum()
    assert soft.sum() > 500


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-50, 300)))
def test_masks_of_anything_are_masks(image: np.ndarray) -> None:
    mask = masks.head_mask(image)
    assert mask.dtype == bool
    assert mask.shape == image.shape
    assert (mask <= masks.dilated(mask)).all()
