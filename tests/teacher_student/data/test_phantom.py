"""The simulated head is repeatable and has the anatomy that tests and metrics rely on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sccg_runtime.errors import InputError
from sccg_teacher_student.data import phantom_tissues as t
from sccg_teacher_student.data.phantom import MR_SCALE, PhantomCase, phantom_case, phantom_pairs

MIDDLE = slice(4, 10)  # of 12 slices: from the basal ganglia upwards


@pytest.fixture(scope="module")
def heads() -> list[PhantomCase]:
    return [phantom_case(index, seed=0, size=(128, 128), slices=12) for index in range(4)]


def test_same_arguments_give_the_same_head() -> None:
    first, second = (phantom_case(2, seed=9, size=(64, 64), slices=3) for _ in range(2))
    for name in ("labels", "ct_hu", "mr"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_cases_and_seeds_differ() -> None:
    heads = [phantom_case(*args, size=(64, 64), slices=2) for args in ((0, 0), (1, 0), (0, 1))]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (heads[i].labels != heads[j].labels).mean() > 0.02


def test_shapes_types_and_spacing(heads: list[PhantomCase]) -> None:
    head = heads[0]
    assert head.labels.shape == head.ct_hu.shape == head.mr.shape == (12, 128, 128)
    assert (head.labels.dtype, head.ct_hu.dtype, head.mr.dtype) == (np.uint8, np.float32, np.float32)
    assert head.spacing_mm == pytest.approx((1.8, 1.8))
    wide = phantom_case(0, 0, (64, 96), 2)
    assert wide.mr.shape == (2, 64, 96)


@pytest.mark.parametrize("arguments", [(-1, 0), (0, -1), (0, 0, (30, 32)), (0, 0, (8, 8)), (0, 0, (32, 32), 0)])
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="phantom"):
        phantom_case(*arguments)


def test_values_are_whole_and_fit_their_files(heads: list[PhantomCase]) -> None:
    for head in heads:
        for volume, low, high in ((head.ct_hu, -1024, 3071), (head.mr, 0, 32767)):
            np.testing.assert_array_equal(volume, np.rint(volume))
            assert volume.min() >= low
            assert volume.max() <= high


def test_air_surrounds_the_head(heads: list[PhantomCase]) -> None:
    for head in heads:
        outside = ndimage.binary_erosion(head.labels == t.AIR.index, np.ones((1, 5, 5)), border_value=1)
        assert np.median(head.ct_hu[outside]) == pytest.approx(-1000, abs=1)
        assert head.ct_hu[outside].std() < 8
        border = head.labels[:, [0, -1], :]
        assert (border == t.AIR.index).all()
        assert np.percentile(head.mr[outside], 99) < 0.06 * MR_SCALE


def test_the_skull_closes_around_the_brain(heads: list[PhantomCase]) -> None:
    for head in heads:
        for labels in head.labels[MIDDLE]:
            bone = np.isin(labels, t.SKULL_LABELS)
            brain = np.isin(labels, t.BRAIN_LABELS)
            reachable, _ = ndimage.label(~bone)
            assert not brain[reachable == reachable[0, 0]].any()
            assert brain.sum() > 1000


def test_tables_are_denser_than_the_diploe(heads: list[PhantomCase]) -> None:
    sharp = phantom_case(0, 0, (256, 256), 3)
    middle, labels = sharp.ct_hu[1], sharp.labels[1]
    core = ndimage.binary_erosion(labels == t.DIPLOE.index)
    assert 350 < np.median(middle[core]) < 900
    assert np.percentile(middle[np.isin(labels, t.SKULL_LABELS)], 90) > 1100


def test_ventricles_are_bright_on_t2_and_dark_on_ct(heads: list[PhantomCase]) -> None:
    for head in heads:
        centre = np.zeros_like(head.labels, bool)
        centre[MIDDLE, 40:90, 44:84] = True
        fluid = ndimage.binary_erosion(centre & (head.labels == t.CSF.index), np.ones((1, 3, 3)))
        white = ndimage.binary_erosion(centre & (head.labels == t.WHITE.index), np.ones((1, 3, 3)))
        assert fluid.sum() > 30
        assert head.mr[fluid].mean() > 2 * head.mr[white].mean()
        assert head.ct_hu[fluid].mean() < head.ct_hu[white].mean() - 10


def test_tissues_keep_their_order_in_the_images(heads: list[PhantomCase]) -> None:
    assert t.CSF.signal > t.EDEMA.signal > t.GREY.signal > t.DEEP_GREY.signal > t.WHITE.signal > t.MUSCLE.signal
    head = heads[0]
    deep = {
        name: ndimage.binary_erosion(head.labels == tissue.index, np.ones((1, 3, 3)))
        for name, tissue in (("grey", t.DEEP_GREY), ("white", t.WHITE))
    }
    assert head.ct_hu[deep["grey"]].mean() > head.ct_hu[deep["white"]].mean() + 3


def test_white_matter_is_folded_under_grey(heads: list[PhantomCase]) -> None:
    for head in heads:
        labels = head.labels[7]
        white = labels == t.WHITE.index
        grey = labels == t.GREY.index
        edge = white & ndimage.binary_dilation(~white)
        hull = np.sqrt(4 * np.pi * np.isin(labels, t.BRAIN_LABELS).sum())  # outline of a disc of that area
        assert edge.sum() > 1.6 * hull
        assert 0.2 < grey.sum() / (white.sum() + grey.sum()) < 0.7


def test_left_and_right_differ(heads: list[PhantomCase]) -> None:
    for head in heads:
        plane = head.labels[6]
        brain = np.isin(plane, t.BRAIN_LABELS)
        columns = np.flatnonzero(brain.any(axis=0))
        cut = plane[:, columns[0] : columns[-1] + 1]
        assert (cut != cut[:, ::-1]).mean() > 0.1


def test_the_head_narrows_to_the_vertex_and_has_sinuses_below(heads: list[PhantomCase]) -> None:
    for head in heads:
        area = np.isin(head.labels, t.BRAIN_LABELS).sum(axis=(1, 2))
        assert area[-1] < 0.6 * area[6]
        holes = ndimage.binary_fill_holes(head.labels[0] != t.AIR.index) & (head.labels[0] == t.AIR.index)
        assert holes.sum() > 40
        assert (head.labels[:2] == t.VITREOUS.index).sum() > 40


def test_some_heads_have_a_lesion() -> None:
    counts = [(phantom_case(index, 0, (64, 64), 8).labels == t.LESION.index).sum() for index in range(10)]
    assert 1 <= np.count_nonzero(counts) <= 9


def test_pairs_come_without_a_disk() -> None:
    pairs = list(phantom_pairs(2, slices=3, size=64, seed=1))
    assert [(p.case, p.slice) for p in pairs][:4] == [
        ("case01", "0001"),
        ("case01", "0002"),
        ("case01", "0003"),
        ("case02", "0001"),
    ]
    for pair in pairs:
        for image in (pair.mr, pair.ct):
            assert image is not None
            assert image.shape == (1, 64, 64)
            assert image.dtype == np.float32
            assert image.min() >= -1
            assert image.max() <= 1
