"""Structural consistency against plain NumPy, and who learns from which of its two terms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sccg_teacher_student.extractors import MindFeatures
from sccg_teacher_student.structure import (
    Structure,
    info_nce,
    intensity_view,
    query_positions,
    sc_rows,
    structural_consistency,
)

Array = npt.NDArray[np.float64]


def cosine(first: Array, second: Array) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def rows_in_numpy(features: Array, positions: Array, window: int) -> Array:
    """(C, H, W) -> (Q, K): loops over queries and places."""
    centred = features - features.mean(axis=(1, 2), keepdims=True)
    height, width = (min(window, side) for side in features.shape[1:])
    rows = []
    for down, right in positions:
        top = min(max(down - height // 2, 0), features.shape[1] - height)
        left = min(max(right - width // 2, 0), features.shape[2] - width)
        places = [(top + a, left + b) for a in range(height) for b in range(width)]
        rows.append([cosine(centred[:, down, right], centred[:, a, b]) for a, b in places])
    return np.array(rows)


@pytest.mark.parametrize("window", [3, 4, 64])
def test_sc_rows_are_cosines_with_a_window_around_the_query(window: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 5, 7, 9))
    positions = np.array([(0, 0), (6, 8), (3, 4), (0, 8), (5, 1)])
    found = sc_rows(torch.tensor(features), torch.tensor(positions), window).numpy()
    for number in range(2):
        np.testing.assert_allclose(found[number], rows_in_numpy(features[number], positions, window), atol=1e-12)


def test_structural_consistency_is_the_mean_distance_of_cosines_from_1() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 2, 4, 6))
    expected = np.mean([abs(1 - cosine(first[n, q], second[n, q])) for n in range(2) for q in range(4)])
    assert float(structural_consistency(torch.tensor(first), torch.tensor(second))) == pytest.approx(expected)


def test_info_nce_is_the_cross_entropy_of_finding_the_same_query() -> None:
    rng = np.random.default_rng(2)
    rows, others = rng.normal(size=(2, 2, 5, 6))
    terms = []
    for number in range(2):
        for query in range(5):
            logits = np.array([cosine(rows[number, query], others[number, other]) / 0.1 for other in range(5)])
            terms.append(np.log(np.exp(logits).sum()) - logits[query])
    assert float(info_nce(torch.tensor(rows), torch.tensor(others), 0.1)) == pytest.approx(np.mean(terms))


def test_queries_are_256_different_places_or_all_of_a_small_map() -> None:
    draws = torch.Generator().manual_seed(0)
    many = query_positions((40, 20), draws)
    assert many.shape == (256, 2)
    assert len({tuple(place) for place in many.tolist()}) == 256
    assert many[:, 0].max() < 40
    assert many[:, 1].max() < 20
    assert len(query_positions((3, 5), draws)) == 15


def slices(seed: int) -> Tensor:
    return torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_each_term_teaches_its_own_part() -> None:
    structure = Structure(MindFeatures())
    output = slices(1).requires_grad_()
    consistency, contrast = structure(slices(0), output, torch.Generator().manual_seed(0))
    consistency.backward(retain_graph=True)
    assert output.grad is not None
    assert float(output.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in structure.project.parameters())
    output.grad = None
    contrast.backward()
    assert output.grad is None
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in structure.project.parameters())


def test_the_same_structure_in_other_grey_values_is_consistent_and_another_structure_is_not() -> None:
    structure, image = Structure(MindFeatures()), slices(0)
    draws = torch.Generator().manual_seed(0)
    same = float(structure(image, image, draws)[0].detach())
    inverted = float(structure(image, -image, draws)[0].detach())
    other = float(structure(image, slices(5), draws)[0].detach())
    assert same == pytest.approx(0, abs=1e-5)
    assert inverted == pytest.approx(0, abs=1e-3), "MIND does not see the sign"
    assert other > 0.1


def test_projections_learn_to_find_the_same_place() -> None:
    torch.manual_seed(0)
    structure, image = Structure(MindFeatures()), slices(0)
    optimizer = torch.optim.Adam(structure.project.parameters(), lr=3e-2)
    losses = []
    for step in range(12):
        loss = structure(image, image, torch.Generator().manual_seed(step % 2))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_a_view_keeps_place_and_range_and_changes_grey_values() -> None:
    image = slices(0)
    view = intensity_view(image, torch.Generator().manual_seed(0))
    assert view.shape == image.shape
    assert float(view.abs().max()) <= 1
    assert float((view - image).abs().mean()) > 0.01
    assert np.corrcoef(view.flatten().numpy(), image.flatten().numpy())[0, 1] > 0.9
