"""Whether sccg-runtime's input check notices what a clinic could confuse, on simulated heads."""

import numpy as np
import pytest

from sccg_runtime.input_check import differences
from sccg_runtime.intensity import linear_to_unit, mr_white
from sccg_runtime.statistics import input_statistics
from sccg_teacher_student.data.phantom import phantom_case
from sccg_teacher_student.data.phantom_tissues import TISSUES
from sccg_teacher_student.data.settings import MR_ASSUMED


def mr_statistics(*volumes):
    return input_statistics(
        [linear_to_unit(slice_[None], 0, mr_white(volume, MR_ASSUMED)) for volume in volumes for slice_ in volume]
    )


def ct_statistics(*volumes):
    return input_statistics([linear_to_unit(slice_[None], -1024, 2000) for volume in volumes for slice_ in volume])


@pytest.fixture(scope="module")
def cases():
    """Three heads to learn from, and a fourth."""
    return [phantom_case(index, 0, (128, 128), 8) for index in range(4)]


@pytest.fixture
def chest():
    """Lungs, soft tissue and a spine in HU; (8, 128, 128)."""
    y, x = np.mgrid[:128, :128] - 63.5
    body = np.where((x / 60) ** 2 + (y / 42) ** 2 < 1, 45.0, -1000.0)
    body[((np.abs(x) - 28) / 20) ** 2 + (y / 30) ** 2 < 1] = -820
    body[x**2 + (y - 32) ** 2 < 36] = 600
    return body + np.random.default_rng(0).normal(0, 20, (8, 128, 128))


def test_another_head_is_not_reported(cases):
    assert differences(mr_statistics(cases[3].mr), mr_statistics(*(case.mr for case in cases[:3]))) == []
    assert differences(ct_statistics(cases[3].ct_hu), ct_statistics(*(case.ct_hu for case in cases[:3]))) == []


def test_a_flair_like_contrast_is_reported(cases):
    fluid = next(tissue.index for tissue in TISSUES if tissue.name == "cerebrospinal fluid")
    flair = np.where(cases[3].labels == fluid, 0.1 * cases[3].mr, cases[3].mr)
    assert differences(mr_statistics(flair), mr_statistics(*(case.mr for case in cases[:3])))


def test_a_chest_mr_in_the_place_of_ct_and_black_slices_are_reported(cases, chest):
    trained = ct_statistics(*(case.ct_hu for case in cases[:3]))
    for volume in (chest, cases[3].mr - 1024, np.full((8, 128, 128), -1000.0)):
        assert any(text.startswith("grey levels") for text in differences(ct_statistics(volume), trained))
