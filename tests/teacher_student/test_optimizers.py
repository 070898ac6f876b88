"""MuonAdamW: which parameter is stepped by what, memory formats, and loss scaling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sccg_teacher_student.optimizers import MuonAdamW

DECAY = 1e-2
UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


def network() -> nn.Sequential:
    """Two wide convolutions, whose weights are a broad and a tall matrix, a narrow one, and a batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 20, 3), nn.BatchNorm2d(20), nn.Conv2d(20, 48, 1), nn.Conv2d(48, 1, 3))


def learn(net: nn.Module, optimizer: MuonAdamW, steps: int = 3, scaler: torch.amp.GradScaler = UNSCALED) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.set_rate(1e-2)
        optimizer.zero_grad()
        loss = (net(torch.randn(2, 16, 8, 8, generator=generator)) - 1).square().mean()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step(scaler, clip_norm=1.0)


@pytest.fixture(params=[True, False], ids=["bfloat16", "no bfloat16"], autouse=True)
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the device computes in bfloat16: all tests run as on both."""
    amp = torch.bfloat16 if request.param else None
    monkeypatch.setattr("sccg_teacher_student.optimizers.choose_amp", lambda name, device: amp)
    return bool(request.param)


def test_wide_convolutions_are_stepped_as_the_library_steps_matrices(
    has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, twin = network(), network()
    learn(net, MuonAdamW(net, weight_decay=DECAY, muon_ratio=3.0), steps=1)

    (twin(torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))) - 1).square().mean().backward()
    nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    wide, narrow = (twin[0].weight, twin[2].weight), twin[3].weight
    matrices = [nn.Parameter(weight.detach().flatten(1)) for weight in wide]
    for matrix, weight in zip(matrices, wide, strict=True):
        matrix.grad = weight.grad.flatten(1)
    if not has_bfloat16:  # then the library shall not round either
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    torch.optim.Muon(matrices, lr=3e-2, weight_decay=DECAY).step()
    torch.optim.AdamW([narrow], lr=1e-2, weight_decay=DECAY).step()

    for index, matrix in zip((0, 2), matrices, strict=True):
        torch.testing.assert_close(net[index].weight.flatten(1), matrix, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net[3].weight, narrow, atol=1e-6, rtol=1e-5)


def test_the_memory_format_changes_nothing() -> None:
    plain, last = network(), network().to(memory_format=torch.channels_last)
    for net in (plain, last):
        learn(net, MuonAdamW(net, weight_decay=DECAY, muon_ratio=3.0))
    # the library rounds matrices to bfloat16, whose sums depend on the order of the columns
    torch.testing.assert_close(last[0].weight, plain[0].weight, atol=2e-3, rtol=0)


def test_every_parameter_is_learned_and_those_beside_too() -> None:
    net, beside = network(), nn.Parameter(torch.ones(1))
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer = MuonAdamW(net, [beside], weight_decay=0.0, muon_ratio=3.0)
    optimizer.set_rate(1e-2)
    (net(torch.ones(2, 16, 8, 8)) + beside - 2).square().mean().backward()
    optimizer.step(UNSCALED, clip_norm=None)
    assert float(beside.detach()) != 1
    gradients = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in net.parameters()]
    changed = [not torch.equal(new, old) for new, old in zip(net.parameters(), before, strict=True)]
    assert changed == gradients
    assert sum(changed) >= 3


def test_without_a_ratio_everything_is_adamw() -> None:
    net, twin = network(), network()
    learn(net, MuonAdamW(net, weight_decay=DECAY, muon_ratio=0.0), steps=1)
    (twin(torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))) - 1).square().mean().backward()
    nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=DECAY).step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_resumed_optimiser_takes_the_same_steps() -> None:
    whole, parted = network(), network()
    learn(whole, whole_optimizer := MuonAdamW(whole, weight_decay=DECAY, muon_ratio=3.0))
    learn(parted, optimizer := MuonAdamW(parted, weight_decay=DECAY, muon_ratio=3.0))
    resumed = MuonAdamW(parted, weight_decay=DECAY, muon_ratio=3.0)
    resumed.load_state_dict(optimizer.state_dict())
    learn(whole, whole_optimizer)
    learn(parted, resumed)
    for ours, theirs in zip(parted.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_with_an_overflow_anywhere_is_left_out_by_both() -> None:
    net = network()
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer, scaler = MuonAdamW(net, weight_decay=DECAY, muon_ratio=3.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.set_rate(1e-2)
    scaler.scale(net(torch.ones(2, 16, 8, 8)).square().mean()).backward()
    net[3].bias.grad.fill_(torch.inf)  # AdamW's; the wide weights' gradients are finite
    assert not torch.isfinite(optimizer.step(scaler, clip_norm=1.0))
    assert scaler.get_scale() == 4.0
    for now, then in zip(net.parameters(), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("shape", [(16, 16, 1, 1), (3, 16, 3, 3), (16, 1, 3, 3)])
def test_only_matrices_with_two_long_sides_go_to_muon(shape: tuple[int, ...]) -> None:
    net = nn.Conv2d(shape[1], shape[0], shape[2])
    optimizer = MuonAdamW(net, weight_decay=0.0, muon_ratio=3.0)
    assert len(optimizer.state_dict()) == (2 if min(shape[0], shape[1] * shape[2] ** 2) >= 16 else 1)
