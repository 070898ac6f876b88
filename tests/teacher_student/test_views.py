"""Views are fixed by seed and number, stay in range, and move input and reference together."""

from __future__ import annotations

import numpy as np
import pytest
from teacher_fakes import bases, picture

from sccg_teacher_student import views
from sccg_teacher_student.views import Base, contrast, deformation, make_view, warp


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_the_same_seed_and_number_give_the_same_view(seed: int) -> None:
    for number in (0, 2, 3, 17, 1000):
        one, other = (make_view(bases(), seed, number) for _ in range(2))
        np.testing.assert_array_equal(one[0], other[0])
        assert (one[1] is None) == (other[1] is None)
        if one[1] is not None and other[1] is not None:
            np.testing.assert_array_equal(one[1], other[1])


def test_views_differ_by_number_and_by_seed() -> None:
    found = [make_view(bases(), seed, number)[0].tobytes() for seed in (0, 1) for number in range(3, 23)]
    assert len(set(found)) == len(found)


def test_the_first_views_are_every_slice_as_it_is() -> None:
    chosen = bases(5)
    originals = {base.load()[0].tobytes(): base for base in chosen}
    for seed in (0, 9):
        first = [make_view(chosen, seed, number) for number in range(5)]
        assert {image.tobytes() for image, _ in first} == set(originals)
        for image, reference in first:
            np.testing.assert_array_equal(reference, originals[image.tobytes()].load()[1])


def test_the_sixth_view_is_no_original() -> None:
    originals = {base.load()[0].tobytes() for base in bases(5)}
    assert make_view(bases(5), 0, 5)[0].tobytes() not in originals


def test_views_keep_shape_type_and_range() -> None:
    references = 0
    for number in range(200):
        image, reference = make_view(bases(4), 3, number)
        for array in (image, reference):
            if array is not None:
                assert array.shape == (32, 48)
                assert array.dtype == np.float32
                assert np.isfinite(array).all()
                assert -1 <= array.min() <= array.max() <= 1
        references += reference is not None
    assert 120 < references < 190, "most views keep their reference, those that mix slices lose it"


def test_geometric_views_move_input_and_reference_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def same() -> tuple[np.ndarray, np.ndarray]:
        return picture(1), picture(1)

    monkeypatch.setattr(views, "MIX", {"deform": 1.0})
    monkeypatch.setattr(views, "contrast", lambda image, rng: image)
    for number in range(1, 30):
        image, reference = make_view([Base("a", "0", same)], 0, number)
        assert reference is not None
        np.testing.assert_array_equal(image, reference)
        assert not np.array_equal(image, picture(1))


def test_contrast_views_leave_the_reference_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MIX", {"contrast": 1.0})
    (base,) = bases(1)
    for number in range(1, 6):
        image, reference = make_view([base], 0, number)
        np.testing.assert_array_equal(reference, base.load()[1])
        assert not np.array_equal(image, base.load()[0])


@pytest.mark.parametrize("kind", ["deform", "contrast"])
def test_every_eighth_view_is_made_smaller(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(views, "MIX", {kind: 1.0})
    head = np.full((64, 64), -1, np.float32)
    head[12:52, 12:52] = 0
    filled = {
        number: float((make_view([Base("a", "0", lambda: (head, None))], 0, number)[0] > -0.9).mean())
        for number in range(1, 81)
    }
    small = [share for number, share in filled.items() if number % 8 == 0]
    usual = [share for number, share in filled.items() if number % 8]
    assert max(small) < min(0.3, np.mean(usual))
    assert min(usual) > 0.2


@pytest.mark.parametrize("kind", ["average", "mix"])
def test_views_of_two_slices_have_no_reference(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(views, "MIX", {kind: 1.0})
    assert all(make_view(bases(4), 0, number)[1] is None for number in range(4, 30))


def test_averages_stay_within_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": -0.5, "b": 0.5}

    def flat(value: float) -> Base:
        case = "a" if value < 0 else "b"
        return Base(case, "0", lambda: (np.full((32, 32), value, np.float32), None))

    chosen = [flat(values[case]) for case in "aabb"]
    monkeypatch.setattr(views, "MIX", {"average": 1.0})
    monkeypatch.setattr(views, "contrast", lambda image, rng: image)
    for number in range(4, 40):
        centre = make_view(chosen, 0, number)[0][12:20, 12:20]
        assert np.abs(np.abs(centre) - 0.5).max() < 1e-6


def test_every_slice_is_drawn_and_case_ends_more_often() -> None:
    chosen = [Base("a", str(number), lambda: (picture(), None)) for number in range(9)]
    rng = np.random.default_rng(0)
    counts = np.bincount([views._pick(chosen, rng) for _ in range(3000)], minlength=9)
    assert counts.min() > 150
    assert counts[[0, 1, 2, 6, 7, 8]].min() > counts[[3, 4, 5]].max()


def test_what_comes_in_from_outside_is_background() -> None:
    image = np.full((32, 32), 0.5, np.float32)
    coordinates = np.stack(np.meshgrid(np.arange(32) + 100.0, np.arange(32), indexing="ij"))
    assert (warp(image, coordinates) == -1).all()


def test_fine_detail_between_pixels_is_kept() -> None:
    columns = np.arange(64)
    waves = np.broadcast_to(0.8 * np.sin(2 * np.pi * columns / 4), (64, 64)).astype(np.float32)
    moved = warp(waves, np.stack(np.meshgrid(np.arange(64.0), columns + 0.5, indexing="ij")))
    inside = np.s_[8:-8, 8:-8]
    assert np.square(moved[inside]).mean() > 0.9 * np.square(waves[inside]).mean()


def test_warped_slices_stay_in_range() -> None:
    edges = np.where(np.random.default_rng(0).random((32, 32)) < 0.5, -1, 1).astype(np.float32)
    moved = warp(edges, deformation(edges.shape, np.random.default_rng(1)))
    assert np.abs(moved).max() <= 1


@pytest.mark.parametrize("size", [(32, 48), (37, 61), (256, 256)])
def test_deformations_are_smooth_and_of_the_slices_size(size: tuple[int, int]) -> None:
    for seed in range(5):
        field = deformation(size, np.random.default_rng(seed))
        assert field.shape == (2, *size)
        steps = [np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2)]
        assert max(steps) < 3


def test_contrast_keeps_the_background_black() -> None:
    changed = contrast(picture(), np.random.default_rng(1))
    assert (changed[picture() == -1] == -1).all()
