"""Taps are module names; wrong ones are told; features are compared through learnable projections."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sccg_runtime.errors import InputError
from sccg_teacher_student.features import FeatureMatch, Tap, parse_tap, tapped
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import resnet_spec, s2d_spec

IMAGE = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)


def teacher() -> nn.Module:
    return build_generator(resnet_spec(4, 2, "instance")).eval().requires_grad_(False)


def test_a_tap_is_written_with_an_equals_sign() -> None:
    assert parse_tap("model.10=blocks.1") == Tap("model.10", "blocks.1")
    for text in ("model.10", "=blocks.1", "model.10=", "", " = "):
        with pytest.raises(InputError, match="TEACHER_MODULE=STUDENT_MODULE"):
            parse_tap(text)


def test_taps_give_the_named_modules_outputs() -> None:
    network = teacher()
    with tapped(network, ["model.0", "model.1", "model.10.conv_block.1"]) as outputs:
        network(IMAGE)
        assert torch.equal(outputs["model.1"], network.model[1](outputs["model.0"]))
        assert outputs["model.10.conv_block.1"].shape == (2, 16, 8, 8)


def test_a_layer_before_an_in_place_relu_gives_its_own_output() -> None:
    network = teacher()
    with tapped(network, ["model.2"]) as outputs:
        network(IMAGE)
    assert outputs["model.2"].min() < 0


def test_nothing_is_collected_after_the_taps_are_closed() -> None:
    network = teacher()
    with tapped(network, ["model.1"]) as outputs:
        pass
    network(IMAGE)
    assert outputs == {}
    assert not network.model[1]._forward_hooks


def test_wrong_names_list_what_there_is() -> None:
    with (
        pytest.raises(InputError, match=r"no module model\.99 in ResnetGenerator; there are model\.0, model\.1"),
        tapped(teacher(), ["model.99"]),
    ):
        pass


def test_a_container_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="module blocks is a container"):
        FeatureMatch(teacher(), build_generator(s2d_spec(4, 2)), (Tap("model.10", "blocks"),), (32, 32))


def test_the_match_is_the_mean_squared_error_of_projected_features() -> None:
    student = build_generator(s2d_spec(6, 2)).train()
    taps = (Tap("model.10", "blocks.0"), Tap("model.1", "blocks.1"))
    match = FeatureMatch(teacher(), student, taps, (32, 32))
    assert student.training, "the student's mode is as it was"
    assert [layer.weight.shape[:2] for layer in match.project] == [(16, 6), (4, 6)]
    network = teacher()
    with match.capture(network, student) as (theirs, ours):
        network(IMAGE)
        student(IMAGE)
        loss = match(theirs, ours)
        expected = []
        for tap, layer in zip(taps, match.project, strict=True):
            own = nn.functional.interpolate(layer(ours[tap.student]), theirs[tap.teacher].shape[-2:], mode="bilinear")
            expected.append(((own - theirs[tap.teacher]) ** 2).mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert student.stem.conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in match.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
