"""Rounded activations: an INT8 engine's levels in training, ReLU in evaluation, and ReLU's gradient."""

from __future__ import annotations

import pytest
import torch

from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.rounding import LEVELS, relu
from sccg_teacher_student.networks.spec import student_spec


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_values_lie_on_the_levels_and_move_by_half_a_step_at_most() -> None:
    x = drawn()
    x[0] *= 3 / x[0].amax()
    x[1] *= 3 / x[1].amax()
    rounded, step = relu(x, rounded=True), 3 / LEVELS
    assert torch.allclose(rounded / step, (rounded / step).round(), atol=1e-3)
    assert (rounded - x.relu()).abs().max() <= step / 2 + 1e-6
    assert not torch.equal(rounded, x.relu())


def test_what_lies_above_the_mean_of_the_slices_largest_values_is_cut() -> None:
    x = drawn()
    x[0] *= 1 / x[0].amax()
    x[1] *= 3 / x[1].amax()
    assert relu(x, rounded=True).amax().item() == pytest.approx(2)


def test_the_gradient_is_relus() -> None:
    x = drawn().requires_grad_()
    weights = drawn(1)
    (relu(x, rounded=True) * weights).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, weights * (x > 0))


def test_nothing_but_zeros_stays_zero() -> None:
    x = torch.full((1, 2, 4, 4), -1.0, requires_grad=True)
    relu(x, rounded=True).sum().backward()
    assert torch.equal(relu(x, rounded=True), torch.zeros_like(x))
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("name", ["s2d-8x2", "s2d-8x2-h4-nostd-in1", "s2d-8x2-u12-in"])
def test_a_student_rounds_what_its_blocks_give_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    network = build_generator(student_spec(name))
    seen: list[torch.Tensor] = []
    network.blocks[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        image = torch.rand(1, 1, 64, 64) * 2 - 1
        network.train()(image)
        network.eval()(image)
    training, evaluation = (tensor.unique().numel() for tensor in seen)
    assert training <= LEVELS + 1 < evaluation
