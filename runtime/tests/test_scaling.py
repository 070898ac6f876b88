from types import SimpleNamespace

import numpy as np
import pytest

from sccg_runtime.dicom.pixels import StoredHistogram
from sccg_runtime.errors import InputError, SeriesError
from sccg_runtime.scaling import ct_scaling, mr_scaling


def headers(*windows):
    return [SimpleNamespace(window=window) for window in windows]


def test_the_contract_decides_where_it_can(make):
    scaling = ct_scaling(headers((40, 80)), make.ct2mr(), None)
    assert (scaling.low, scaling.high, scaling.warning) == (-1024, 2000, None)
    np.testing.assert_allclose(scaling.to_unit(np.array([[-3000, 488, 5000]], np.float32)), [[-1, 0, 1]], atol=1e-6)


def test_a_known_display_window_is_used_without_asking(make):
    known = type(make.CT_DISPLAY)(modality="CT", kind="display", window_center_hu=40.0, window_width_hu=100.0)
    scaling = ct_scaling(headers((0, 1)), make.ct2mr(input_intensity=known), None)
    assert (scaling.low, scaling.high, scaling.warning) == (-10, 90, None)


def test_changing_windows_of_a_series_give_their_median_and_a_warning(make):
    contract = make.ct2mr(input_intensity=make.CT_DISPLAY)
    scaling = ct_scaling(headers((30, 80), (35, 100), (40, 100)), contract, None)
    assert (scaling.low, scaling.high) == (-15, 85)
    assert "median" in scaling.warning
    assert "median" in scaling.note


def test_no_window_anywhere_is_refused(make):
    with pytest.raises(SeriesError, match="give --window CENTER WIDTH"):
        ct_scaling(headers((40, 80), None), make.ct2mr(input_intensity=make.CT_DISPLAY), None)


@pytest.mark.parametrize(("moved", "padded"), [(0, False), (1000, False), (1000, True)])
def test_mr_without_black_is_refused_but_where_it_was_masked(make, moved, padded):
    stored = np.rint(make.head() * 1000).astype(np.uint16) + np.uint16(moved)
    stored[0, :2] = 0  # a speck proves nothing
    histogram = StoredHistogram()
    padding = stored == moved if padded else None
    histogram.add(SimpleNamespace(stored=stored, padding=padding, slope=1.0, intercept=0.0))
    if moved and not padded:
        with pytest.raises(SeriesError, match=r"no part of the MR series is dark \(its darkest values lie at 1000"):
            mr_scaling(histogram, make.contract())
    else:
        assert mr_scaling(histogram, make.contract()).high > 800


def test_mr_without_signal_is_refused(make):
    with pytest.raises(InputError, match="no signal"):
        mr_scaling(StoredHistogram(), make.contract())
