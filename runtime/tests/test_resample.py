import numpy as np
import pytest

from sccg_runtime.errors import SeriesError
from sccg_runtime.resample import plan_in_plane, resize

GRIDS = [
    ((256, 256), (0.9, 0.9)),
    ((512, 512), (0.45, 0.45)),
    ((320, 260), (0.75, 0.75)),
    ((300, 200), (0.6, 1.1)),
    ((181, 257), (1.3, 0.7)),
]
SPACINGS = [None, (1.0, 1.0), (0.9, 1.2)]


def blob(size, row, column, sigma_pixels):
    """A Gaussian in [-1, 1] whose centre is at (row, column) in pixel indices."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    shape = np.exp(-(((y - row) / sigma_pixels[0]) ** 2 + ((x - column) / sigma_pixels[1]) ** 2) / 2)
    return (2 * shape - 1).astype(np.float32)


def centre(plane):
    """(row, column) centre of mass above background."""
    weight = np.clip(plane.astype(np.float64) + 1, 1e-2, None) - 1e-2
    y, x = np.mgrid[0 : plane.shape[0], 0 : plane.shape[1]]
    return float((y * weight).sum() / weight.sum()), float((x * weight).sum() / weight.sum())


@pytest.mark.parametrize("trained_spacing", SPACINGS)
@pytest.mark.parametrize(("size", "spacing"), GRIDS)
def test_landmarks_come_back_where_they_were(make, size, spacing, trained_spacing):
    contract = make.contract(trained_size=(256, 256), engine_size=(256, 256), trained_spacing_mm=trained_spacing)
    plan = plan_in_plane(size, spacing, contract)
    sigma = (5 / spacing[0], 5 / spacing[1])
    for share in ((0.2, 0.25), (0.5, 0.5), (0.77, 0.68)):
        row, column = share[0] * size[0] + 0.3, share[1] * size[1] - 0.2
        source = blob(size, row, column, sigma)
        back = plan.to_source(plan.to_run(source))
        assert back.shape == size
        np.testing.assert_allclose(centre(back), centre(source), atol=0.1)
        assert np.abs(back - source).max() < 0.1


@pytest.mark.parametrize(("size", "spacing"), GRIDS)
def test_the_network_sees_landmarks_where_the_patient_has_them(make, size, spacing):
    """Distances in mm inside the network's input are those of the source, along both axes."""
    contract = make.contract(trained_size=(256, 256), engine_size=(256, 256), trained_spacing_mm=None)
    plan = plan_in_plane(size, spacing, contract)
    sigma = (6 / spacing[0], 6 / spacing[1])
    places = [(0.3 * size[0], 0.3 * size[1]), (0.7 * size[0], 0.65 * size[1])]
    found = [centre(plan.to_run(blob(size, *place, sigma))[0]) for place in places]
    for axis in (0, 1):
        real_mm = (places[1][axis] - places[0][axis]) * spacing[axis]
        seen_mm = (found[1][axis] - found[0][axis]) * plan.inner_spacing_mm[axis]
        assert seen_mm == pytest.approx(real_mm, abs=0.15)
        assert plan.inner_spacing_mm[axis] == pytest.approx(plan.inner_spacing_mm[0], rel=0.005)


def test_a_known_spacing_is_reached_and_nothing_is_cut_off(make):
    contract = make.contract(trained_size=(64, 64), engine_size=(64, 64), trained_spacing_mm=(1.0, 1.0))
    plan = plan_in_plane((512, 400), (0.5, 0.5), contract)
    assert plan.inner_size == (256, 200)
    assert plan.run_size == (256, 200)
    assert plan.scale_known
    assert plan.inner_spacing_mm == (1.0, 1.0)


def test_both_axes_reach_their_own_spacing(make):
    contract = make.contract(trained_size=(64, 64), engine_size=(64, 64), trained_spacing_mm=(0.8, 1.25))
    plan = plan_in_plane((200, 300), (1.6, 0.5), contract)
    assert plan.inner_size == (400, 120)
    assert plan.inner_spacing_mm == (0.8, 1.25)


def test_a_small_slice_is_padded_with_background_to_the_engine_size(make):
    contract = make.contract(trained_size=(64, 64), engine_size=(64, 64), trained_spacing_mm=(1.0, 1.0))
    plan = plan_in_plane((80, 60), (0.5, 0.5), contract)
    assert (plan.inner_size, plan.run_size, plan.offset) == ((40, 30), (64, 64), (12, 17))
    run = plan.to_run(np.full((80, 60), 0.5, np.float32))
    np.testing.assert_allclose(run[0, 12:52, 17:47], 0.5, atol=1e-6)
    assert (run[0, :12] == -1).all()
    assert (run[0, :, 47:] == -1).all()


def test_an_unknown_spacing_fits_the_whole_slice_into_the_trained_size(make):
    plan = plan_in_plane((512, 512), (0.45, 0.45), make.contract())
    assert (plan.inner_size, plan.run_size, plan.scale_known) == ((64, 64), (64, 64), False)
    wide = plan_in_plane((256, 512), (0.45, 0.45), make.contract())
    assert (wide.inner_size, wide.run_size, wide.offset) == ((32, 64), (64, 64), (16, 0))


def test_an_engine_of_another_size_does_not_change_the_scale(make):
    plan = plan_in_plane((512, 512), (0.45, 0.45), make.contract(engine_size=(512, 512)))
    assert (plan.inner_size, plan.run_size) == ((64, 64), (64, 64))


def test_the_run_size_is_a_multiple_of_the_stride(make):
    contract = make.contract(trained_size=(60, 60), engine_size=(32, 32), stride=16)
    assert plan_in_plane((512, 512), (0.45, 0.45), contract).run_size == (64, 64)


def test_edges_do_not_ring_outside_of_the_range():
    step = np.full((64, 64), -1, np.float32)
    step[:, 32:] = 1
    for size in ((41, 41), (150, 150)):
        assert np.abs(resize(step, size)).max() <= 1


def test_the_same_size_is_the_same_picture():
    plane = np.random.default_rng(0).uniform(-1, 1, (32, 48)).astype(np.float32)
    np.testing.assert_array_equal(resize(plane, (32, 48)), plane)


def test_shrinking_averages_instead_of_picking_pixels():
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 2.0 - 1
    assert np.abs(resize(checks.astype(np.float32), (32, 32))).max() < 0.05


def test_scales_that_cannot_be_are_refused(make):
    with pytest.raises(SeriesError, match="trained scale"):
        plan_in_plane((512, 512), (0.01, 0.01), make.contract(trained_spacing_mm=(1.0, 1.0)))
    with pytest.raises(SeriesError, match="does not fit"):
        plan_in_plane((64, 64), (1.0, 1.0), make.contract()).to_run(np.zeros((32, 32), np.float32))
