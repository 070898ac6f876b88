"""The discriminator is the CycleGAN repository's, layer for layer."""

from __future__ import annotations

import pytest
import torch
from cyclegan_reference import NLayerDiscriminator
from torch import nn

from sccg_teacher_student.networks.patchgan import PatchDiscriminator


def test_layers_are_those_of_the_paper() -> None:
    layers = list(PatchDiscriminator().model)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [
        *((1, 64), (64, 128), (128, 256), (256, 512), (512, 1))
    ]
    assert {layer.kernel_size for layer in convolutions} == {(4, 4)}
    assert [layer.num_features for layer in layers if isinstance(layer, nn.BatchNorm2d)] == [128, 256, 512]
    slopes = [layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 4
    assert isinstance(layers[0], nn.Conv2d)
    assert isinstance(layers[1], nn.LeakyReLU), "no norm after the first"
    assert layers[-1] is convolutions[-1], "scores are unbounded"


@pytest.mark.parametrize("training", [False, True])
def test_scores_are_those_of_the_reference_with_the_same_state(training: bool) -> None:
    torch.manual_seed(0)
    theirs = NLayerDiscriminator()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    ours = PatchDiscriminator()
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(2, 1, 48, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours.train(training)(image), theirs.train(training)(image))
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)
