import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import (
    Intensity,
    linear_to_unit,
    mr_white,
    mr_white_from_counts,
    unit_to_linear,
    window_limits,
)

WINDOWS = st.tuples(st.floats(-2000, 2000), st.floats(10, 5000)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(window=WINDOWS, shares=st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_inside_the_window_the_way_back_gives_the_value(window, shares):
    low, high = window
    values = (low + (high - low) * np.array(shares)).astype(np.float32)
    back = unit_to_linear(linear_to_unit(values, low, high), low, high)
    np.testing.assert_allclose(back, values, atol=(high - low) * 1e-6 + 4e-4)


@given(window=WINDOWS, value=st.floats(-1e5, 1e5))
def test_the_unit_scale_never_leaves_its_range_and_keeps_order(window, value):
    units = linear_to_unit(np.array([value, value + 1], np.float32), *window)
    assert units.dtype == np.float32
    assert -1 <= units[0] <= units[1] <= 1


def test_window_ends_become_minus_one_and_plus_one():
    units = linear_to_unit(np.array([-1024, 488, 2000, 9999]), -1024, 2000)
    np.testing.assert_allclose(units, [-1, 0, 1, 1], atol=2e-7)
    assert window_limits(40, 80) == (0, 80)


@given(factor=st.floats(1e-3, 1e4), seed=st.integers(0, 50))
def test_mr_white_follows_the_scale_of_the_series(make, factor, seed):
    series = make.head(32, 32, seed) * 700
    assert mr_white([series * factor], make.MR) == pytest.approx(mr_white([series], make.MR) * factor, rel=1e-5)


def test_mr_white_puts_the_percentile_of_the_foreground_on_its_level(make):
    series = make.head(64, 64) * 700
    white = mr_white([series], make.MR)
    foreground = series[series > make.MR.foreground_above * white]
    assert np.percentile(foreground, 99.5) / white == pytest.approx(0.92, rel=1e-6)


@given(
    stored=st.lists(st.integers(-5, 400), min_size=2, max_size=300),
    percentile=st.floats(50, 100),
    parts=st.integers(1, 4),
)
def test_a_histogram_gives_the_same_white_as_the_pixels(stored, percentile, parts):
    intensity = Intensity(modality="MR", kind="percentile", percentile=percentile, foreground_above=0.06, level=0.9)
    if max(stored) <= 0:
        stored = [*stored, 7]
    values, counts = np.unique(np.array(stored, np.float64), return_counts=True)
    split = [np.array(part, np.float64) for part in np.array_split(stored, parts)]
    expected = _reference_white(np.array(stored, np.float64), intensity)
    assert mr_white_from_counts(values, counts, intensity) == pytest.approx(expected, rel=1e-9)
    assert mr_white(split, intensity) == pytest.approx(expected, rel=1e-9)


def _reference_white(values, intensity):
    """The definition, with numpy.percentile on the pixels themselves."""
    values = values[values > 0]
    white = values.max()
    for _ in range(64):
        foreground = values[values > intensity.foreground_above * white]
        found = np.percentile(foreground, intensity.percentile) / intensity.level
        if abs(found - white) <= 1e-6 * white:
            break
        white = found
    return white


def test_padding_slices_with_zeros_changes_nothing(make):
    series = make.head(32, 32) * 700
    assert mr_white([series, np.zeros((64, 64))], make.MR) == mr_white([series], make.MR)


@pytest.mark.parametrize("values", [[], [np.zeros((4, 4))], [np.array([-3.0])], [np.array([1.0, np.nan])]])
def test_a_series_without_usable_signal_is_refused(make, values):
    with pytest.raises(InputError):
        mr_white(values, make.MR)


@pytest.mark.parametrize(
    "values",
    [
        {"modality": "CT", "kind": "percentile", "percentile": 99, "foreground_above": 0.1, "level": 0.9},
        {"modality": "MR", "kind": "hu", "low_hu": 0, "high_hu": 1},
        {"modality": "CT", "kind": "hu", "low_hu": 1},
        {"modality": "CT", "kind": "hu", "low_hu": 2, "high_hu": 1},
        {"modality": "CT", "kind": "hu", "low_hu": "0", "high_hu": 1},
        {"modality": "CT", "kind": "hu", "low_hu": 0, "high_hu": 1, "colour": 1},
        {"modality": "CT", "kind": "display", "window_center_hu": 40},
        {"modality": "CT", "kind": "display", "unit": "HU"},
        {"modality": "MR", "kind": "percentile", "percentile": 99, "foreground_above": 0.95, "level": 0.9},
    ],
)
def test_intensities_that_mean_nothing_are_refused(values):
    with pytest.raises(InputError):
        Intensity.from_dict(values)


def test_intensity_round_trip(make):
    for intensity in (make.MR, make.CT_HU, make.CT_DISPLAY):
        assert Intensity.from_dict(intensity.to_dict()) == intensity
