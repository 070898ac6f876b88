"""Instance norm gives what its formula says, and so do its gradients, in every layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sccg_teacher_student.networks.norm import InstanceNorm2d


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_instance_norm_and_its_gradients_are_those_of_the_formula(
    dtype: torch.dtype, tolerance: float, layout: torch.memory_format, affine: bool, count: int
) -> None:
    torch.manual_seed(0)
    norm = InstanceNorm2d(6, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    if dtype is torch.float64:
        norm = norm.double()
    x, back = (torch.randn(count, 6, 8, 12, dtype=torch.float64).to(dtype) for _ in range(2))
    x, back = ((3 * x + 2).contiguous(memory_format=layout), back.contiguous(memory_format=layout))

    def close(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> None:
        assert ours is not None
        assert theirs is not None
        assert (ours - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))

    given = x.clone().requires_grad_()
    output = norm(given)
    output.backward(back)
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=layout)

    wide = x.double().requires_grad_()
    centred = wide - wide.mean((2, 3), keepdim=True)
    expected = centred / (centred.square().mean((2, 3), keepdim=True) + norm.eps).sqrt()
    parameters = [parameter.detach().double().requires_grad_() for parameter in norm.parameters()]
    if affine:
        expected = parameters[0][:, None, None] * expected + parameters[1][:, None, None]
    expected.backward(back.double())
    close(output.detach(), expected.detach())
    close(given.grad, wide.grad)
    for ours, theirs in zip(norm.parameters(), parameters, strict=True):
        close(ours.grad, theirs.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16_the_gradient_of_instance_norm_does_not_drift(layout: torch.memory_format) -> None:
    """Off-centre channels and gradients: sums rounded to bfloat16 would leave a gradient that is not 0 in the mean."""
    torch.manual_seed(0)
    x, back = ((centre + torch.randn(1, 4, 64, 64)).bfloat16().contiguous(memory_format=layout) for centre in (5, 1))
    norm, wide = InstanceNorm2d(4, affine=True), InstanceNorm2d(4, affine=True).double()
    given, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    norm(given).backward(back)
    wide(exact).backward(back.double())
    assert given.grad is not None
    assert given.grad.double().sum((2, 3)).abs().max() < 2
    assert norm.weight.grad is not None
    assert wide.weight.grad is not None
    assert (norm.weight.grad - wide.weight.grad).abs().max() < 0.5
