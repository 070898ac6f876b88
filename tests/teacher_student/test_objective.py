"""The hybrid objective's pure functions against plain NumPy, written from the paper's formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sccg_teacher_student.losses import least_squares
from sccg_teacher_student.objective import cycle_consistency, discriminator_loss, pixel_translation, pixel_weights

Array = npt.NDArray[np.float64]


def bilinear(image: Array, size: tuple[int, int]) -> Array:
    """(h, w) -> ``size``: pixel centres at (i + 1/2), the border repeated."""

    def weights(count: int, wanted: int) -> Array:
        matrix = np.zeros((wanted, count))
        for place in range(wanted):
            position = min(max((place + 0.5) * count / wanted - 0.5, 0), count - 1)
            low = int(position)
            high = min(low + 1, count - 1)
            matrix[place, low] += 1 - (position - low)
            matrix[place, high] += position - low
        return matrix

    return weights(image.shape[0], size[0]) @ image @ weights(image.shape[1], size[1]).T


def test_the_discriminator_loss_is_half_of_both_squared_errors() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 1, 3, 4)), rng.normal(size=(3, 1, 3, 4))
    expected = 0.5 * np.mean((1 - real) ** 2) + 0.5 * np.mean(fake**2)
    assert float(discriminator_loss(torch.tensor(real), torch.tensor(fake))) == pytest.approx(expected)


def test_the_generator_wants_its_output_to_be_scored_as_real() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 1, 3, 4))
    assert float(least_squares(torch.tensor(scores), real=True)) == pytest.approx(np.mean((1 - scores) ** 2))


def test_p_pix_is_the_upsampled_positive_score_from_0_to_1_for_each_slice() -> None:
    scores = np.random.default_rng(2).normal(size=(2, 1, 4, 6))
    found = pixel_weights(torch.tensor(scores), (32, 48))
    assert found.shape == (2, 1, 32, 48)
    for number in range(2):
        expected = bilinear(np.maximum(scores[number, 0], 0), (32, 48))
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(found[number, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("value", [-0.5, 0.0, 1e-9, 0.7, 1000.0])
def test_a_constant_score_map_weighs_all_pixels_alike(value: float) -> None:
    found = pixel_weights(torch.full((1, 1, 4, 6), value), (32, 48))
    assert torch.equal(found, torch.ones(1, 1, 32, 48))


def test_p_pix_carries_no_gradient() -> None:
    scores = torch.randn(1, 1, 4, 6, requires_grad=True)
    assert not pixel_weights(scores, (32, 48)).requires_grad


def test_pixel_translation_is_the_mean_weighted_distance() -> None:
    rng = np.random.default_rng(3)
    output, target, weights = (rng.uniform(-1, 1, (2, 1, 5, 7)) for _ in range(3))
    found = float(pixel_translation(torch.tensor(output), torch.tensor(target), torch.tensor(np.abs(weights))))
    assert found == pytest.approx(np.mean(np.abs(weights) * np.abs(output - target)))
    plain = float(pixel_translation(torch.tensor(output), torch.tensor(target)))
    assert plain == pytest.approx(np.mean(np.abs(output - target)))
    assert float(cycle_consistency(torch.tensor(output), torch.tensor(target))) == pytest.approx(plain)
