"""Refinement moves the slice of the modality that is the input, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from teacher_fakes import bases

from sccg_runtime.intensity import FloatArray, Modality
from sccg_teacher_student.augment import moved
from sccg_teacher_student.teaching_slices import aligned
from sccg_teacher_student.views import Base


def soft(seed: int = 0) -> FloatArray:
    """A smooth texture in an ellipse, (64, 64) in [-1, 1]."""
    rows, columns = np.mgrid[:64, :64]
    texture = 4 * ndimage.gaussian_filter(np.random.default_rng(seed).uniform(-1, 1, (64, 64)), 3)
    inside = ((rows - 32) / 26) ** 2 + ((columns - 30) / 21) ** 2 < 1
    return np.where(inside, np.clip(0.2 + texture, -0.7, 1), -1).astype(np.float32)


@pytest.mark.parametrize("moving", ["MR", "CT"])
def test_only_the_moving_modality_is_moved_onto_the_other(moving: Modality) -> None:
    place, shift_px = soft(), (3.0, -2.0)
    away = moved(place, shift_px=shift_px)
    pair = {"MR": away, "CT": -place} if moving == "MR" else {"MR": place, "CT": -away}
    made = aligned(Base("a", "000", lambda: (pair["MR"], pair["CT"])), moving)
    found = dict(zip(("MR", "CT"), made.load(), strict=True))
    other: Modality = "CT" if moving == "MR" else "MR"
    np.testing.assert_array_equal(found[other], pair[other])
    wanted = place if moving == "MR" else -place
    inside = np.s_[8:-8, 8:-8]
    given, left = (np.abs(one[moving] - wanted)[inside].mean() for one in (pair, found))
    assert left < 0.3 * given
    assert (made.case, made.slice) == ("a", "000")


def test_a_slice_without_partner_stays() -> None:
    (alone,) = bases(1, paired=False)
    assert aligned(alone, "MR") is alone
