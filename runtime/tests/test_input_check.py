import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_runtime.input_check import differences, empty_slices, histogram_distance, turned
from sccg_runtime.statistics import InputStatistics, input_statistics, slice_statistics


def slices(make, change=lambda plane: plane):
    return [change(2 * make.head(64, 64, seed) - 1).astype(np.float32)[None] for seed in range(6)]


def blurred(plane):
    for axis in (0, 1):
        plane = sum(np.roll(plane, shift, axis) for shift in range(-2, 3)) / 5
    return plane


def noisy(plane):
    return np.maximum(plane, -1 + np.random.default_rng(0).uniform(0, 0.1, plane.shape))


def test_more_slices_of_the_same_kind_are_not_reported(make):
    trained = input_statistics(slices(make))
    assert differences(input_statistics(slices(make)[:3]), trained) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda plane: np.where(plane > -1, -0.5 * plane - 0.3, -1), "grey levels"),
        (blurred, "sharpness"),
        (lambda plane: np.pad(plane, 32, constant_values=-1), "foreground share"),
        (noisy, "background"),
    ],
)
def test_another_kind_of_input_is_reported_with_numbers(make, change, word):
    found = differences(input_statistics(slices(make, change)), input_statistics(slices(make)))
    assert any(text.startswith(word) and any(letter.isdigit() for letter in text) for text in found)


def test_sharper_than_the_training_inputs_is_reported_too(make):
    found = differences(input_statistics(slices(make)), input_statistics(slices(make, blurred)))
    assert any(text.startswith("sharpness") for text in found)


def test_air_blacker_than_in_the_training_inputs_is_reported_too(make):
    found = differences(input_statistics(slices(make)), input_statistics(slices(make, noisy)))
    assert [text for text in found if text.startswith("background is 0.0")]


def test_statistics_of_before_the_background_was_taken_stay_as_they_are_and_leave_it_unchecked(make):
    written = input_statistics(slices(make)).to_dict()
    del written["background"]
    earlier = InputStatistics.from_dict(written)
    assert earlier.to_dict() == written
    assert differences(input_statistics(slices(make, noisy)), earlier) == []


@pytest.mark.parametrize(("level", "reported"), [(0.2, False), (0.3, True)])
def test_where_all_was_black_a_quarter_of_a_grey_level_is_let_through(make, level, reported):
    def grey(plane):
        return np.maximum(plane, -1 + level / 127.5)

    found = differences(input_statistics(slices(make, grey)), input_statistics(slices(make)))
    assert any(text.startswith("background") for text in found) == reported


@given(levels=st.lists(st.integers(0, 15), min_size=1, max_size=30), head=st.integers(0, 30))
def test_background_is_the_mean_grey_level_of_what_is_not_foreground(levels, head):
    plane = np.array([levels + [200] * head], np.float32) / np.float32(127.5) - np.float32(1)
    assert slice_statistics(plane).background == pytest.approx(np.mean(levels), abs=1e-3)


def test_the_distance_is_how_far_grey_levels_move():
    first, second = np.zeros(32), np.zeros(32)
    first[4] = second[7] = 1
    assert histogram_distance(first, second) == pytest.approx(3 * 8)
    assert histogram_distance(first, first) == 0


def test_an_empty_slice_has_no_foreground():
    histogram, sharpness, share, background = slice_statistics(np.full((1, 8, 8), -1, np.float32))
    assert (histogram.sum(), sharpness, share, background) == (0, 0, 0, 0)


def test_slices_that_are_all_foreground_have_no_background():
    full, half = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.float32)
    half[:, :4] = -1 + 2 / 127.5
    assert slice_statistics(full).background is None
    assert input_statistics([full]).background is None
    assert input_statistics([full, half]).background == pytest.approx(input_statistics([half]).background)


def test_the_usual_axial_view_and_small_tilts_are_not_reported():
    assert turned((1, 0, 0, 0, 1, 0)) == []
    assert turned((1, 0, 0, 0, 0.9483237, -0.3173047)) == []
    assert turned((0.94, 0.342, 0, -0.342, 0.94, 0)) == []


def test_empty_slices_are_counted_and_the_first_is_named():
    assert empty_slices([0.2, 0.01], ["a", "b"]) == []
    assert empty_slices([0.2, 0, 0], ["a", "b", "c"]) == ["2 of 3 slices are empty (first: b)"]
