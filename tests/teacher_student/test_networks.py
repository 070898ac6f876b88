"""What the networks compute before and after they are folded for engines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import SPECS, used
from torch import nn

from sccg_teacher_student.networks.build import build_generator, fold_for_export, strided_stem
from sccg_teacher_student.networks.cost import gmac, parameters
from sccg_teacher_student.networks.norm import InstanceNorm2d
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.networks.s2d import SpaceToDepthStem
from sccg_teacher_student.networks.spec import GeneratorSpec, s2d_spec, student_spec


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.factor}")
@pytest.mark.parametrize("strides", [(4, 4), (5, 8)])
def test_output_is_one_slice_of_the_same_size_in_range(spec: GeneratorSpec, strides: tuple[int, int]) -> None:
    network = used(spec)
    size = (strides[0] * spec.stride, strides[1] * spec.stride)
    with torch.inference_mode():
        output = network(torch.randn(2, spec.in_channels, *size).clamp(-1, 1))
    assert output.shape == (2, 1, *size)
    assert output.abs().max() <= 1
    assert output.std() > 0


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.factor}")
def test_folding_keeps_the_function(spec: GeneratorSpec) -> None:
    network = used(spec)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_for_export(network)
    image = torch.rand(2, spec.in_channels, 32, 48) * 2 - 1
    with torch.inference_mode():
        expected, output = network(image), folded(image)
    assert expected.std() > 1e-3
    assert (output - expected).abs().max() < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d | SpaceToDepthStem) for module in folded.modules())
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the original was changed"


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (16, 40), (64, 24)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_strided_stem_equals_pixel_unshuffle_and_convolution(
    factor: int, channels: int, size: tuple[int, int], bias: bool, kernel: int
) -> None:
    stem = SpaceToDepthStem(channels, 6, factor, bias, kernel)
    image = torch.randn(2, channels, *size)
    with torch.inference_mode():
        expected = stem.conv(F.pixel_unshuffle(image, factor))
        strided = strided_stem(stem)(image)
    assert strided.shape == (2, 6, size[0] // factor, size[1] // factor)
    assert (strided - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("scale", "offset"), [(0.5, 0.0), (3.0, 0.7), (1.0, -2.0)])
@pytest.mark.parametrize("name", ["s2d-8x2", "s2d-8x2-h4-in"])
def test_a_standardising_student_does_not_see_brightness_and_contrast(name: str, scale: float, offset: float) -> None:
    network, plain = used(student_spec(name)), used(s2d_spec(8, 2, plain=True))
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert (network(scale * image + offset) - network(image)).abs().max() < 2e-3
        assert (plain(scale * image + offset) - plain(image)).abs().max() > 1e-2, "this one does see it"


def test_a_flat_slice_is_standardised_without_nan() -> None:
    with torch.inference_mode():
        assert torch.isfinite(used(s2d_spec(8, 2))(torch.full((1, 1, 32, 32), -1.0))).all()


def test_clipped_pixels_still_learn_in_training_only() -> None:
    network = build_generator(s2d_spec(4, 1, plain=True))
    with torch.no_grad():
        network.tail.bias.fill_(5.0)  # every pixel far above +1
    image = torch.zeros(1, 1, 16, 16)
    network.train()
    output = network(image)
    assert torch.allclose(output, torch.full_like(output, 1 + network.clip_margin))
    output.mean().backward()
    assert network.tail.bias.grad.sum() == pytest.approx(1.0)
    network.zero_grad()
    used = network.eval()(image)
    assert torch.equal(used, torch.ones_like(used))
    used.mean().backward()
    assert network.tail.bias.grad.abs().sum() == 0


def test_no_loss_can_push_a_clipped_pixel_further_out() -> None:
    network = build_generator(s2d_spec(4, 1, plain=True)).train()
    for value, away in ((5.0, -1.0), (-5.0, 1.0)):
        with torch.no_grad():
            network.tail.bias.fill_(value)
        network.zero_grad()
        (away * network(torch.zeros(1, 1, 16, 16)).mean()).backward()
        assert network.tail.bias.grad.abs().sum() == 0


def test_the_tangent_and_the_clip_are_of_the_same_sums() -> None:
    networks = [used(student_spec(name)) for name in ("s2d-8x2-tanh", "s2d-8x2")]
    with torch.no_grad():
        networks[0].tail.weight.mul_(10)
    networks[1].load_state_dict(networks[0].state_dict())
    image = torch.randn(1, 1, 32, 32).clamp(-1, 1)
    with torch.inference_mode():
        tangent, clipped = (network(image) for network in networks)
    within = clipped.abs() < 1
    assert 0 < int(within.sum()) < within.numel(), "there is something to clip"
    torch.testing.assert_close(tangent[within], torch.tanh(clipped[within]))
    assert tangent[~within].abs().min() >= np.tanh(1) - 1e-6


def test_film_starts_as_identity_and_depends_on_the_whole_slice() -> None:
    network = build_generator(s2d_spec(8, 1)).eval()
    bare = build_generator(replace(s2d_spec(8, 1), film_after=()))
    bare.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("films")})
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), bare.eval()(image))


def test_norm_once_is_one_norm_per_block_and_one_in_the_tail() -> None:
    def norms(name: str) -> list[str]:
        modules = build_generator(student_spec(name)).named_modules()
        return [path for path, module in modules if isinstance(module, InstanceNorm2d)]

    assert norms("s2d-8x2-in1") == ["stem_norm", "blocks.0.norm1", "blocks.1.norm1", "tail_norm"]
    assert set(norms("s2d-8x2-in")) - set(norms("s2d-8x2-in1")) == {"blocks.0.norm2", "blocks.1.norm2"}
    biased = [
        path for path, tensor in build_generator(student_spec("s2d-8x2-in1")).named_parameters() if "bias" in path
    ]
    assert "blocks.0.conv2.bias" in biased, "nothing behind it shifts"
    assert not {"blocks.0.conv1.bias", "tail_in.bias"} & set(biased), "the norm behind them takes it away"


def test_a_lower_path_lets_a_pixel_see_further() -> None:
    """At half the resolution the blocks reach twice as far; the branch's pooled code reaches the whole slice."""

    def reach(name: str) -> int:
        network = used(student_spec(name))
        image = torch.zeros(1, 1, 256, 256)
        with torch.inference_mode():
            dark = network(image)
            image[0, 0, 128, 128] = 1
            return int((network(image) != dark).any(dim=2).sum())

    assert reach("s2d-8x2-plain") < reach("s2d-8x2-u12-plain") < reach("s2d-8x2-branch-plain") == 256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet-64x9-in", 194.9),
        ("resnet-16x9-in", 12.5),
        ("s2d-48x4-o3-notail", 2.95),
        ("s2d-48x3-o3-branch-notail", 2.8),
        ("s2d-64x3-h16-g16-nostd-in1-tanh", 1.01),
        ("s2d-64x3-s16-g16-nostd-in1-tanh", 1.63),
    ],
)
def test_multiply_adds_at_512_are_those_of_a_count_by_hand(name: str, expected: float) -> None:
    assert gmac(student_spec(name), (512, 512)) == pytest.approx(expected, rel=0.02)


def test_multiply_adds_are_in_proportion_to_the_pixels() -> None:
    """All but FiLM, whose share is a few thousand."""
    spec = student_spec("s2d-48x4-branch")
    assert gmac(spec, (512, 256)) == pytest.approx(2 * gmac(spec, (256, 256)), rel=1e-4)


def test_parameters_are_counted() -> None:
    assert parameters(nn.Conv2d(3, 5, 3)) == 3 * 5 * 9 + 5


@pytest.mark.parametrize("size", [32, 64, 256])
def test_discriminator_scores_patches(size: int) -> None:
    network = PatchDiscriminator()
    with torch.inference_mode():
        scores = network(torch.zeros(2, 1, size, size))
    assert scores.shape == (2, 1, size // 8 - 2, size // 8 - 2)
    strides = [module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [2, 2, 2, 1, 1]
