"""Biases ahead of instance norm: the same function, and bfloat16 in between loses less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import head, off_centre
from torch import Tensor, nn

from sccg_export.centre import centre
from sccg_export.graph import export_graph
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.build import fold_for_export

IMAGES = [head(64, 64, seed) for seed in range(3)]


def used(name: str) -> nn.Module:
    return fold_for_export(off_centre(name))


def run(network: nn.Module, image: FloatArray) -> FloatArray:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(image)[None])[0].numpy())


def means(network: nn.Module, image: FloatArray) -> list[Tensor]:
    """What each instance norm reads, mean over a slice."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].mean((0, 2, 3))))
        for module in network.modules()
        if isinstance(module, nn.InstanceNorm2d)
    ]
    run(network, image)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("s2d-8x2-h4-nostd-in1-tanh", 5),
        ("s2d-8x2-g4-nostd-in1", 4),
        ("resnet-4x1-in", 7),
        ("s2d-8x2-in", 5),
        ("s2d-8x2-u16-branch-in", 11),
    ],
)
def test_the_function_stays_the_same_while_means_go(name: str, norms: int) -> None:
    network = used(name)
    before, away = [run(network, image) for image in IMAGES], means(network, IMAGES[0])
    centre(network, IMAGES[:1])
    assert len(away) == norms
    assert np.std(before) > 0.01
    for image, expected in zip(IMAGES, before, strict=True):
        np.testing.assert_allclose(run(network, image), expected, atol=1e-4)
    for near, far in zip(means(network, IMAGES[0]), away, strict=True):
        assert near.abs().max() < 1e-4 < far.abs().max()


def test_a_bias_that_is_there_already_counts() -> None:
    once, twice = used("s2d-8x2-nostd-in1"), used("s2d-8x2-nostd-in1")
    centre(once, IMAGES)
    centre(twice, IMAGES)
    centre(twice, IMAGES)
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["s2d-8x2-plain", "resnet-4x1-bn"])
def test_without_instance_norm_nothing_changes(name: str) -> None:
    network = used(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    centre(network, IMAGES)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_bfloat16_between_convolution_and_norm_loses_less() -> None:
    pale = [image / 20 + np.float32(0.9) for image in IMAGES]

    def error(network: nn.Module) -> float:
        expected = [run(network, image) for image in pale]
        for module in network.modules():
            if isinstance(module, nn.InstanceNorm2d):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))
        found = [run(network, image) for image in pale]
        return float(np.mean([(one - other) ** 2 for one, other in zip(found, expected, strict=True)]))

    plain, centred = used("s2d-8x2-h4-nostd-in1-tanh"), used("s2d-8x2-h4-nostd-in1-tanh")
    centre(centred, pale)
    assert error(centred) < 0.5 * error(plain)


def test_only_a_graph_that_is_to_be_quantised_is_centred() -> None:
    network = used("s2d-8x2-nostd-in1")
    plain, centred = export_graph(network, (64, 64)), export_graph(network, (64, 64), IMAGES)
    assert [graph.network.stem.bias is None for graph in (plain, centred)] == [True, False]
