"""Losses against their formulas in plain NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from sccg_teacher_student.distillation import shifted
from sccg_teacher_student.losses import (
    charbonnier,
    haar_bands,
    head_weight,
    least_squares,
    sharpened,
    ssim,
    wavelet_l1,
)

Array = npt.NDArray[np.float64]


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output and target (3, 1, 32, 40) in [-1, 1] and weights of two values, 1 in the mean, float64."""
    generator = torch.Generator().manual_seed(4)
    target = torch.rand(3, 1, 32, 40, generator=generator, dtype=torch.float64) * 2 - 1
    output = (target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    weight = 1 + 2 * torch.rand(target.shape, generator=generator, dtype=torch.float64).round()
    return output, target, weight / weight.mean()


def pooled(values: Array, cell: int) -> Array:
    n, c, h, w = values.shape
    return values.reshape(n, c, h // cell, cell, w // cell, cell).mean((3, 5))


def haar(values: Array) -> tuple[Array, Array]:
    """One level by matrices: low, and the three high bands in the channel axis."""
    low, high = np.array([1.0, 1.0]) / np.sqrt(2), np.array([1.0, -1.0]) / np.sqrt(2)
    n, _, h, w = values.shape
    blocks = values.reshape(n, 1, h // 2, 2, w // 2, 2)
    bands = [np.einsum("nchiwj,i,j->nchw", blocks, rows, columns) for rows in (low, high) for columns in (low, high)]
    return bands[0], np.concatenate(bands[1:], 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_charbonnier_is_the_weighted_mean_of_the_distance(images: tuple[torch.Tensor, ...], weighted: bool) -> None:
    output, target, weight = images
    a, b, w = (part.numpy() for part in images)
    distance = np.sqrt((a - b) ** 2 + 0.03**2) - 0.03
    expected = np.average(distance, weights=w if weighted else None)
    assert float(charbonnier(output, target, weight if weighted else None)) == pytest.approx(expected, rel=1e-10)


def test_charbonnier_is_zero_for_equals_and_has_a_gradient_there(images: tuple[torch.Tensor, ...]) -> None:
    output = images[1].clone().requires_grad_()
    loss = charbonnier(output, images[1])
    loss.backward()
    assert float(loss.detach()) == 0
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


def test_haar_bands_are_the_orthonormal_transform(images: tuple[torch.Tensor, ...]) -> None:
    image = images[0]
    low, high = haar_bands(image)
    expected_low, expected_high = haar(image.numpy())
    np.testing.assert_allclose(low.numpy(), expected_low, atol=1e-12)
    energies = [np.sort((bands**2).sum((0, 2, 3))) for bands in (high.numpy(), expected_high)]
    np.testing.assert_allclose(energies[0], energies[1])
    assert float((low**2).sum() + (high**2).sum()) == pytest.approx(float((image**2).sum()), rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_wavelet_l1_is_the_mean_over_two_levels_of_high_bands(images: tuple[torch.Tensor, ...], weighted: bool) -> None:
    output, target, weight = images
    low, w, total = output.numpy() - target.numpy(), weight.numpy(), 0.0
    for _ in range(2):
        low, high = haar(low)
        w = pooled(w, 2)
        total += np.average(np.abs(high).mean(1, keepdims=True), weights=w if weighted else None)
    value = float(wavelet_l1(output, target, weight if weighted else None))
    assert value == pytest.approx(total / 2, rel=1e-10)


def test_wavelet_l1_does_not_see_a_shift_in_brightness(images: tuple[torch.Tensor, ...]) -> None:
    assert float(wavelet_l1(images[0] + 0.1, images[0])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gain", [1.0, 1.3])
def test_sharpened_is_an_unsharp_mask(images: tuple[torch.Tensor, ...], gain: float) -> None:
    target = images[1] / images[1].abs().max() * 0.5
    smooth = ndimage.gaussian_filter(target.numpy(), 1.5, mode="nearest", truncate=3.5, axes=(2, 3))
    expected = target.numpy() + (gain - 1) * (target.numpy() - smooth)
    np.testing.assert_allclose(sharpened(target, gain).numpy(), expected.clip(-1, 1), atol=1e-6)


def test_sharpened_multiplies_detail_leaves_the_rest_and_stays_in_range() -> None:
    columns = torch.arange(64, dtype=torch.float32)
    for cycles_per_px, factor in ((0.01, 1.0), (0.125, 1.15), (0.3, 1.3)):
        wave = 0.5 * torch.sin(2 * torch.pi * cycles_per_px * columns).expand(1, 1, 64, 64)
        inner = sharpened(wave, 1.3)[..., 12:-12]
        assert float(inner.norm() / wave[..., 12:-12].norm()) == pytest.approx(factor, abs=0.02)
    step = torch.sign(columns - 31.5).expand(1, 1, 64, 64)
    assert torch.equal(sharpened(step, 1.3), step)


def test_ssim_is_that_of_scikit_image_on_the_valid_region(images: tuple[torch.Tensor, ...]) -> None:
    output, target, _ = images
    expected = []
    for one, other in zip(output.numpy()[:, 0], target.numpy()[:, 0], strict=True):
        full = structural_similarity(
            one, other, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )[1]
        expected.append(full[5:-5, 5:-5].mean())
    assert float(ssim(output, target)) == pytest.approx(np.mean(expected), abs=1e-9)
    assert float(ssim(target, target)) == pytest.approx(1, abs=1e-12)


def test_ssim_can_be_trained_on_after_it_was_only_measured() -> None:
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        ssim(image, image, sigma=1.25)
    output = image.clone().requires_grad_()
    ssim(output, 1 - image, sigma=1.25).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0


@pytest.mark.parametrize("real", [True, False])
def test_least_squares_is_the_distance_to_the_label(real: bool) -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0]])
    assert float(least_squares(scores, real)) == pytest.approx(float(((scores.numpy() - real) ** 2).mean()))


def test_head_weight_is_three_near_the_head_of_either_slice_and_one_in_air() -> None:
    image, target = torch.full((2, 1, 1, 32, 40), -1.0).unbind()
    image[0, 0, 9, 17] = 0.0  # cell (2, 4)
    target[0, 0, 31, 39] = -0.87  # the last cell
    image[0, 0, 0, 30] = -0.89  # below the threshold: air
    weight = head_weight(image, target)
    expected = np.ones((8, 10))
    expected[1:4, 3:6] = 3
    expected[6:, 8:] = 3
    np.testing.assert_array_equal(weight[0, 0].numpy(), np.kron(expected, np.ones((4, 4))))


def test_shifted_moves_all_channels_and_repeats_the_border() -> None:
    stack = torch.arange(3 * 5 * 6, dtype=torch.float32).reshape(3, 5, 6)
    stack[2] = torch.nan
    moved = shifted(stack, 2, -3)
    rows, columns = np.clip(np.arange(5) - 2, 0, 4), np.clip(np.arange(6) + 3, 0, 5)
    np.testing.assert_array_equal(moved.numpy(), stack.numpy()[:, rows][:, :, columns])
    assert torch.equal(shifted(stack[:2], 0, 0), stack[:2])
