"""MR and CT of a pair move together; a pair that does not lie exactly on itself is brought there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.augment import moved, moved_together
from sccg_teacher_student.registration import Rigid, refine


def blob(row: float, column: float, size: tuple[int, int] = (64, 48)) -> FloatArray:
    """A soft spot on background -1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (2 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18) - 1).astype(np.float32)


def centre_of(image: FloatArray) -> tuple[float, ...]:
    return tuple(map(float, ndimage.center_of_mass(image + 1)))


def test_a_shift_goes_down_and_right_by_its_pixels() -> None:
    assert centre_of(moved(blob(30, 20), shift_px=(3.5, -2))) == pytest.approx((33.5, 18), abs=0.05)


def test_a_turn_about_the_centre_goes_from_columns_towards_rows() -> None:
    turned = moved(blob(31.5, 33.5), angle_deg=90)
    assert centre_of(turned) == pytest.approx((41.5, 23.5), abs=0.05)


def test_scale_and_flip() -> None:
    assert centre_of(moved(blob(31.5, 33.5), scale=0.5)) == pytest.approx((31.5, 28.5), abs=0.05)
    assert centre_of(moved(blob(20, 10), flip=True)) == pytest.approx((20, 37), abs=0.05)


def test_nothing_asked_changes_nothing_and_outside_is_background() -> None:
    image = blob(30, 20)
    np.testing.assert_allclose(moved(image), image, atol=1e-6)
    assert (moved(np.ones_like(image), shift_px=(10, 0))[:9] == -1).all()


def test_fine_detail_outlives_a_shift_by_half_a_pixel_and_grey_values_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(3 * ndimage.gaussian_filter(rng.uniform(-1, 1, (64, 48)), 0.7), -1, 1).astype(np.float32)
    shifted = moved(image, shift_px=(0.5, 0.5))
    inside = np.s_[8:-8, 8:-8]
    whole, kept, linear = (
        ndimage.laplace(one)[inside].var() for one in (image, shifted, moved(image, shift_px=(0.5, 0.5), order=1))
    )
    assert kept > 0.55 * whole
    assert linear < 0.3 * whole
    assert shifted.min() >= -1
    assert shifted.max() <= 1


def test_a_pair_moves_together() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(6):
        mr, ct = moved_together([blob(26, 20), -blob(26, 20)], rng)
        assert mr is not None
        assert ct is not None
        inside = np.s_[12:-12, 12:-12]
        np.testing.assert_allclose(mr[inside], -ct[inside], atol=1e-5)
        seen.add(tuple(round(value, 1) for value in centre_of(mr)))
    assert len(seen) == 6
    assert moved_together([None, blob(26, 20)], rng)[0] is None


def head(seed: int) -> tuple[FloatArray, FloatArray]:
    """(mr, ct): the same shapes, grey values without a linear relation."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    radius = np.hypot((rows - 31.5) / 26, (columns - 31.5) / 21)
    spots = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3)
    tissue = np.digitize(spots, np.quantile(spots, [0.33, 0.66]))
    mr = np.select([radius < 0.8, radius < 0.95, radius < 1.1], [np.array([0.2, 0.9, -0.3])[tissue], -0.9, 0.4], -1)
    ct = np.select([radius < 0.8, radius < 0.95, radius < 1.1], [np.array([0.1, -0.1, 0.0])[tissue], 1.0, -0.2], -1)
    return mr.astype(np.float32), ct.astype(np.float32)


def test_refinement_undoes_a_small_rigid_displacement_between_modalities() -> None:
    mr, ct = head(0)
    away = Rigid(1.5, (2.4, -1.7))
    found = refine(away.apply(mr), ct)
    back = found.apply(away.apply(mr))
    assert found.angle_deg == pytest.approx(-1.5, abs=0.4)
    assert np.abs(back - mr)[8:-8, 8:-8].mean() < 0.4 * np.abs(away.apply(mr) - mr)[8:-8, 8:-8].mean()


def test_refinement_moves_nothing_where_there_is_nothing_to_see() -> None:
    mr, _ = head(0)
    blank = np.full_like(mr, -1)
    for pair in ((blank, mr), (mr, blank), (blank, blank)):
        assert refine(*pair) == Rigid(0.0, (0.0, 0.0))


def test_refinement_leaves_an_aligned_pair_where_it_is() -> None:
    mr, ct = head(1)
    found = refine(mr, ct)
    assert abs(found.angle_deg) < 0.3
    assert found.shift_px == pytest.approx((0, 0), abs=0.3)
