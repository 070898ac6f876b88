"""Every figure against its formula, and on cases whose answer is known."""

from __future__ import annotations

import tracemalloc

import bench_fakes as fakes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter

from sccg_bench import highpass
from sccg_bench.hu import hu_scores
from sccg_bench.masks import dilated, head_mask
from sccg_bench.metrics import bias_u8, closeness, mae_u8, psnr_db, ssim, worst_mae_u8
from sccg_bench.scale import to_u8
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Intensity, unit_to_linear

IMAGE = to_u8(fakes.head(64, seed=1))
OTHER = to_u8(fakes.head(64, seed=2))
HEAD = dilated(head_mask(IMAGE))


def test_identical_slices_are_capped_at_100_db() -> None:
    same = closeness(IMAGE, IMAGE, HEAD)
    assert (same.psnr_db, same.capped, same.ssim, same.mae_u8) == (100.0, True, pytest.approx(1), 0.0)
    assert (same.psnr_head_db, same.mae_head_u8, same.ssim_head) == (100.0, 0.0, pytest.approx(1))


def test_a_difference_too_small_to_matter_is_capped_too() -> None:
    assert psnr_db(IMAGE + 1e-6, IMAGE) == (100.0, True)


def test_ten_levels_brighter_is_mae_10_and_the_psnr_of_the_formula() -> None:
    found = closeness(IMAGE + 10, IMAGE, HEAD)
    assert found.mae_u8 == pytest.approx(10)
    assert found.psnr_db == pytest.approx(20 * np.log10(255 / 10))
    assert found.psnr_head_db == pytest.approx(20 * np.log10(255 / 10))
    assert not found.capped
    assert bias_u8(IMAGE + 10, IMAGE, HEAD) == pytest.approx(10)
    assert bias_u8(IMAGE - 10, IMAGE, HEAD) == pytest.approx(-10)


def test_figures_equal_their_formulas() -> None:
    found = closeness(IMAGE, OTHER, HEAD)
    difference = IMAGE - OTHER
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / np.mean(difference**2)))
    assert found.psnr_head_db == pytest.approx(10 * np.log10(255**2 / np.mean(difference[HEAD] ** 2)))
    assert found.mae_head_u8 == pytest.approx(np.abs(difference[HEAD]).mean())


def wang(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SSIM map from the formula of Wang et al. 2004, gaussian of sigma 1.5 cut off at 3.5 sigma."""

    def blur(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5, mode="reflect")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(image), blur(other)
    var_a, var_b = blur(image**2) - mean_a**2, blur(other**2) - mean_b**2
    covariance = blur(image * other) - mean_a * mean_b
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def test_ssim_equals_the_formula_whole_and_inside_the_head() -> None:
    expected = wang(IMAGE, OTHER)
    mean, full = ssim(IMAGE, OTHER)
    assert full is not None
    np.testing.assert_allclose(full, expected, atol=1e-9)
    assert mean == pytest.approx(expected[5:-5, 5:-5].mean())
    assert closeness(IMAGE, OTHER, HEAD).ssim_head == pytest.approx(expected[HEAD].mean())


def test_slices_below_the_ssim_window_and_empty_heads_give_none() -> None:
    small = np.arange(64.0).reshape(8, 8)
    found = closeness(small, small + 1, np.zeros((8, 8), bool))
    assert found.ssim is None
    assert (found.ssim_head, found.psnr_head_db, found.mae_head_u8) == (None, None, None)
    assert found.mae_u8 == pytest.approx(1)


def test_the_worst_five_percent_are_the_worst() -> None:
    error = np.zeros((10, 10))
    error.flat[:5] = 40
    everywhere = np.ones((10, 10), bool)
    assert worst_mae_u8(error, np.zeros((10, 10)), everywhere) == pytest.approx(40)
    error.flat[:5] = 0
    error.flat[7] = -50
    assert worst_mae_u8(error, np.zeros((10, 10)), everywhere) == pytest.approx(10)
    assert worst_mae_u8(error, error, np.zeros((10, 10), bool)) is None
    assert bias_u8(error, error, np.zeros((10, 10), bool)) is None


def test_mean_absolute_error_inside_a_mask() -> None:
    error = np.zeros((10, 10))
    error[:2] = [[-6.0], [2.0]]
    mask = np.zeros((10, 10), bool)
    assert mae_u8(error, np.zeros((10, 10)), mask) is None
    mask[:2] = True
    assert mae_u8(error, np.zeros((10, 10)), mask) == pytest.approx(4)
    expected = mean_absolute_error(OTHER[HEAD], IMAGE[HEAD])
    assert mae_u8(IMAGE, OTHER, HEAD) == pytest.approx(expected)


def mean_absolute_error(truth: np.ndarray, found: np.ndarray) -> float:
    return sum(abs(float(a) - float(b)) for a, b in zip(truth, found, strict=True)) / truth.size


def wave(cycles_per_px: float, size: int = 64, phase: float = 0) -> np.ndarray:
    return 100 * np.sin(2 * np.pi * cycles_per_px * np.arange(size) + phase)[None].repeat(size, 0)


@pytest.mark.parametrize(("frequency", "passes"), [(4 / 64, False), (8 / 64, False), (9 / 64, True), (0.25, True)])
def test_high_pass_keeps_what_lies_above_a_quarter_of_nyquist(frequency: float, passes: bool) -> None:
    band = highpass.high_pass(wave(frequency) + 77)
    np.testing.assert_allclose(band, wave(frequency) if passes else 0, atol=1e-9)


def test_high_pass_equals_the_full_complex_transform_on_odd_sides() -> None:
    image = np.random.default_rng(0).normal(size=(45, 31))
    spectrum = np.fft.fft2(image)
    low = np.hypot(np.fft.fftfreq(45)[:, None], np.fft.fftfreq(31)[None]) <= 0.125
    np.testing.assert_allclose(highpass.high_pass(image), np.fft.ifft2(np.where(low, 0, spectrum)).real, atol=1e-12)


def test_blur_lowers_hf_ratio_and_half_the_contrast_quarters_it() -> None:
    band = highpass.high_pass(IMAGE)
    blurred = highpass.high_pass(uniform_filter(IMAGE, 3))
    assert highpass.energy_ratio(band, band, HEAD) == pytest.approx(1)
    assert highpass.energy_ratio(blurred, band, HEAD) < 0.5
    assert highpass.energy_ratio(highpass.high_pass(IMAGE / 2), band, HEAD) == pytest.approx(0.25)


def test_detail_in_the_wrong_place_has_the_right_energy_and_no_correlation() -> None:
    band, moved = highpass.high_pass(wave(0.25)), highpass.high_pass(wave(0.25, phase=np.pi / 2))
    everywhere = np.ones(band.shape, bool)
    assert highpass.energy_ratio(moved, band, everywhere) == pytest.approx(1)
    assert highpass.correlation(moved, band, everywhere) == pytest.approx(0, abs=1e-9)
    assert highpass.correlation(-band, band, everywhere) == pytest.approx(-1)
    shifted = highpass.high_pass(np.roll(IMAGE, 2, axis=1))
    assert highpass.correlation(shifted, highpass.high_pass(IMAGE), HEAD) < 0.5


def test_correlation_is_pearsons() -> None:
    first, second = highpass.high_pass(IMAGE), highpass.high_pass(OTHER)
    expected = np.corrcoef(first[HEAD], second[HEAD])[0, 1]
    assert highpass.correlation(first, second, HEAD) == pytest.approx(expected)


def test_detail_of_nothing_is_none() -> None:
    flat, nowhere = np.zeros((16, 16)), np.zeros((16, 16), bool)
    assert highpass.energy_ratio(flat, flat, ~nowhere) is None
    assert highpass.energy_ratio(flat, flat, nowhere) is None
    assert highpass.correlation(flat, flat, ~nowhere) is None
    assert highpass.correlation(flat, flat, nowhere) is None
    assert highpass.phase_ratio(flat, flat) is None
    assert highpass.phase_ratio(np.zeros((3, 9)), np.ones((3, 9))) is None


def test_detail_that_is_not_there_at_all_correlates_with_nothing() -> None:
    band = highpass.high_pass(IMAGE)
    everywhere = np.ones(band.shape, bool)
    assert highpass.correlation(np.zeros(band.shape), band, everywhere) == 0
    assert highpass.correlation(band, np.zeros(band.shape), everywhere) is None


def test_a_pattern_on_the_stride_shows_in_phase_ratio_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (128, 128))
    grid = np.zeros((128, 128))
    grid[::4, ::4] = 8
    assert highpass.phase_ratio(IMAGE[:64, :64] * 0 + 1, np.zeros((64, 64))) == pytest.approx(1)
    assert highpass.phase_ratio(noise, np.zeros((128, 128))) < 1.2
    assert highpass.phase_ratio(noise + grid, np.zeros((128, 128))) > 5
    assert highpass.phase_ratio(grid, np.zeros((128, 128))) == highpass.MOST_UNEVEN, "nothing but a checkerboard"


HU = Intensity(modality="CT", kind="hu", low_hu=-1024, high_hu=3000)


def test_hu_figures_equal_their_formulas() -> None:
    reference = np.concatenate([fakes.head(32, seed) for seed in range(8)])
    reference[reference < 0.9] = np.clip(reference[reference < 0.9] - 0.4, -1, 1)  # soft tissue near 0 HU
    reference[:, 14:17, 14:17] = -1  # a sinus
    output = np.clip(reference + np.float32(0.05) * (reference + 1.2), -1, 1)
    found = hu_scores(output, reference, HU)
    body = np.stack([head_mask(to_u8(plane)) for plane in reference])
    first, second = (unit_to_linear(volume, -1024, 3000).astype(float) for volume in (output, reference))
    assert found.mae_hu == pytest.approx(np.abs(first - second)[body].mean())
    assert found.psnr_hu_db == pytest.approx(10 * np.log10(4024**2 / np.square(first - second)[body].mean()))
    assert found.ssim_hu == pytest.approx(ssim_3d(first, second, body))
    for value, low, high in (
        (found.mae_air_hu, -np.inf, -150),
        (found.mae_soft_hu, -150, 250),
        (found.mae_bone_hu, 250, np.inf),
    ):
        tissue = body & (second >= low) & (second < high)
        assert tissue.any()
        assert value == pytest.approx(np.abs(first - second)[tissue].mean())
    assert hu_scores(reference, reference, HU).to_dict() == {
        "mae_hu": 0.0,
        "psnr_hu_db": 100.0,
        "ssim_hu": pytest.approx(1.0),
        "mae_air_hu": 0.0,
        "mae_soft_hu": 0.0,
        "mae_bone_hu": 0.0,
    }


def ssim_3d(output: np.ndarray, reference: np.ndarray, body: np.ndarray) -> float:
    """SynthRAD's: a mean over 7x7x7 voxels, sample covariance, air outside the body; the masked mean of its map."""
    a, b = (np.where(body, np.clip(volume, -1024, 3000), -1024) + 1024 for volume in (output, reference))

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, 7)

    c1, c2, sample = (0.01 * 4024) ** 2, (0.03 * 4024) ** 2, 343 / 342
    var_a, var_b = sample * (mean(a * a) - mean(a) ** 2), sample * (mean(b * b) - mean(b) ** 2)
    covariance = sample * (mean(a * b) - mean(a) * mean(b))
    full = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    full /= (mean(a) ** 2 + mean(b) ** 2 + c1) * (var_a + var_b + c2)
    return float(full[body].mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(7, 12), st.integers(7, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_hu_figures_are_those_of_the_whole_volume(depth: int, rows: int, columns: int, seed: int, gap: bool) -> None:
    rng = np.random.default_rng(seed)
    reference, noise = rng.uniform(-1, 1, (2, depth, rows, columns)).astype(np.float32)
    if gap:
        reference[depth // 4 : depth // 4 + 12] = -1  # planes without a body, a part of SSIM and more of them
    output = np.clip(reference + np.float32(0.3) * noise, -1, 1)
    found = hu_scores(output, reference, HU)
    body = np.stack([head_mask(to_u8(plane)) for plane in reference])
    if not body.any():
        assert set(found.to_dict().values()) == {None}
        return
    first, second = (unit_to_linear(volume, -1024, 3000).astype(float) for volume in (output, reference))
    error = (first - second)[body]
    assert found.mae_hu == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert found.psnr_hu_db == pytest.approx(10 * np.log10(4024**2 / np.square(error).mean()), rel=1e-9)
    expected = ssim_3d(first, second, body) if depth >= 7 else None
    assert found.ssim_hu == (None if expected is None else pytest.approx(expected, rel=1e-9))


def test_memory_for_hu_figures_does_not_grow_with_the_volume() -> None:
    def peak_bytes(depth: int) -> int:
        planes = [fakes.head(64)[0]] * depth
        tracemalloc.start()
        hu_scores(planes, planes, HU)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(8)
    assert peak_bytes(120) - peak_bytes(24) < 96 * 64 * 64 * 2, "no more than the body masks, of a byte a voxel"


def test_hu_figures_need_hu_and_do_without_slices() -> None:
    volume = np.full((2, 16, 16), -1, np.float32)
    assert set(hu_scores(volume, volume, HU).to_dict().values()) == {None}
    few = np.concatenate([fakes.head(32, seed) for seed in range(2)])
    assert hu_scores(few, few, HU).ssim_hu is None
    with pytest.raises(InputError, match="kind hu"):
        hu_scores(few, few, Intensity(modality="CT", kind="display"))
    with pytest.raises(InputError, match="shapes differ"):
        hu_scores(few, few[:1], HU)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_mse_is_at_least_the_square_of_mae(seed: int, scale: float) -> None:
    noise = np.random.default_rng(seed).normal(0, scale, (16, 16))
    found = closeness(IMAGE[:16, :16] + noise, IMAGE[:16, :16], np.ones((16, 16), bool))
    assert 255 / 10 ** (found.psnr_db / 20) >= found.mae_u8 - 1e-9
    assert found.psnr_head_db == pytest.approx(found.psnr_db)
