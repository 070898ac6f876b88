"""Specs, students' names, and what the networks compute before and after they are folded for engines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from sccg_runtime.errors import InputError
from sccg_teacher_student.networks.build import build_generator, fold_for_export, strided_stem
from sccg_teacher_student.networks.cost import gmac, parameters
from sccg_teacher_student.networks.norm import InstanceNorm2d
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.networks.s2d import FiLM, SpaceToDepthStem
from sccg_teacher_student.networks.spec import PRESETS, GeneratorSpec, resnet_spec, s2d_spec, student_spec

S2D_NO_NORM = replace(s2d_spec(8, 3), norm="none")
# Every option of an s2d name once, and some together.
OPTIONS = [
    *("s2d-8x2-f2", "s2d-8x2-f8", "s2d-8x3-u12", "s2d-8x2-branch", "s2d-8x2-k5", "s2d-8x2-k7"),
    *(
        "s2d-8x2-dw3",
        "s2d-8x2-dw5",
        "s2d-8x2-dw7",
        "s2d-8x2-nostd",
        "s2d-8x2-nodil",
        "s2d-8x2-nofilm",
        "s2d-8x2-notail",
    ),
    *("s2d-8x2-f8-u12-branch-dw7-plain-notail", "s2d-8x2-f2-branch-k5-nostd-nofilm", "s2d-8x4-f8-branch-nodil-notail"),
    *("s2d-8x2-h4", "s2d-8x2-h4-u12-plain", "s2d-8x2-h4-in"),
    *("s2d-8x2-in", "s2d-8x2-o3-nostd-nodil-in", "s2d-8x2-u12-branch-dw3-in-notail"),
    *("s2d-8x2-in1", "s2d-8x3-h4-nostd-in1", "s2d-8x2-u12-branch-dw3-in1"),
    *("s2d-8x2-tanh", "s2d-8x2-plain-notail-tanh", "s2d-8x3-h4-nostd-in1-tanh"),
]
SPECS = [
    student_spec("resnet-4x2"),
    student_spec("resnet-4x2-in"),
    resnet_spec(4, 1, "instance-affine", downsamples=1),
    replace(resnet_spec(4, 2), padding="zeros"),
    replace(resnet_spec(4, 1), in_channels=2, out_channels=3),
    s2d_spec(8, 4),
    s2d_spec(8, 2, plain=True),
    S2D_NO_NORM,
    replace(s2d_spec(8, 2), factor=8),
    replace(s2d_spec(8, 2), factor=2),
    replace(S2D_NO_NORM, in_channels=3),
    replace(student_spec("s2d-8x2-u12-branch"), norm="none", in_channels=2),
    *map(student_spec, OPTIONS),
]


def used(spec: GeneratorSpec) -> nn.Module:
    """A generator whose norms have statistics and whose FiLM layers do something; in evaluation mode."""
    network = build_generator(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, FiLM):
            for parameter in module.parameters():
                nn.init.normal_(parameter, 0, 0.1)
    for name, parameter in network.named_parameters():
        if name == "tail.weight":
            nn.init.normal_(parameter, 0, 0.1)
    return network.eval()


@given(width=st.integers(1, 1024), blocks=st.integers(0, 64), norm=st.sampled_from(["", "-bn", "-in"]))
def test_resnet_names_say_width_blocks_and_norm(width: int, blocks: int, norm: str) -> None:
    spec = student_spec(f"resnet-{width}x{blocks}{norm}")
    assert spec == resnet_spec(width, blocks, "instance" if norm == "-in" else "batch")
    assert spec.name == f"resnet-{width}x{blocks}{norm or '-bn'}"
    assert student_spec(spec.name) == spec


@given(width=st.integers(1, 1024), blocks=st.integers(1, 64), plain=st.booleans())
def test_s2d_names_say_width_and_blocks(width: int, blocks: int, plain: bool) -> None:
    name = f"s2d-{width}x{blocks}{'-plain' if plain else ''}"
    spec = student_spec(name)
    assert spec.name == name
    assert (spec.width, spec.blocks, spec.standardise, bool(spec.film_after)) == (width, blocks, not plain, not plain)


@given(
    width=st.integers(1, 1024),
    blocks=st.integers(2, 64),
    factor=st.sampled_from(["", "-f2", "-f8"]),
    outer=st.sampled_from(["", "-o3"]),
    half=st.one_of(st.just(""), st.integers(1, 1024).map("-h{}".format)),
    inner=st.one_of(st.just(""), st.integers(1, 1024).map("-u{}".format)),
    branch=st.sampled_from(["", "-branch"]),
    kernel=st.sampled_from(["", "-k5", "-k7", "-dw3", "-dw5", "-dw7"]),
    plain=st.booleans(),
    nostd=st.sampled_from(["", "-nostd"]),
    nodil=st.sampled_from(["", "-nodil"]),
    norm=st.sampled_from(["", "-nofilm", "-in", "-in1"]),
    tail=st.sampled_from(["", "-notail"]),
    tanh=st.sampled_from(["", "-tanh"]),
)
def test_s2d_names_with_options_are_the_spec_and_back(
    width: int,
    blocks: int,
    factor: str,
    outer: str,
    half: str,
    inner: str,
    branch: str,
    kernel: str,
    plain: bool,
    nostd: str,
    nodil: str,
    norm: str,
    tail: str,
    tanh: str,
) -> None:
    off = "-plain" if plain else f"{nostd}{nodil}{norm}"
    outer = "" if plain or off == "-nostd-nodil-nofilm" else outer  # with it, the latter is called plain
    half = "" if factor else half
    tail = "" if off.endswith("-in1") else tail
    name = f"s2d-{width}x{blocks}{factor}{outer}{half}{inner}{branch}{kernel}{off}{tail}{tanh}"
    spec = student_spec(name)
    assert spec.name == name
    assert (spec.factor, spec.half_width, spec.inner_width) == tuple(
        int(text[2:] or usual) for text, usual in ((factor, 4), (half, 0), (inner, 0))
    )
    assert spec.outer_kernel == (3 if outer or plain else 1)
    assert (spec.branch, spec.refine, spec.tanh) == (bool(branch), not tail, bool(tanh))
    assert (spec.kernel, spec.depthwise) == (int(kernel[-1:] or 3), "dw" in kernel)
    assert spec.standardise == (not plain and not nostd)
    assert bool(spec.film_after) == (not plain and not norm)
    assert spec.norm == ("instance-affine" if norm.startswith("-in") and not plain else "batch")
    assert spec.norm_once == off.endswith("-in1")
    assert (set(spec.dilations) == {1}) == (plain or bool(nodil))


def test_without_all_four_is_plain_and_one_block_has_no_dilation_to_leave_out() -> None:
    assert student_spec("s2d-8x3-o3-nostd-nodil-nofilm") == student_spec("s2d-8x3-plain")
    assert student_spec("s2d-8x1-nodil") == student_spec("s2d-8x1")


def test_a_spec_that_no_name_says_is_custom() -> None:
    assert replace(s2d_spec(8, 3), dilations=(3, 3, 3)).name == "s2d-8x3-custom"
    assert replace(s2d_spec(8, 3), norm="none").name == "s2d-8x3-custom"
    assert replace(s2d_spec(8, 3), norm="instance-affine").name == "s2d-8x3-custom"  # FiLM as well


@given(name=st.one_of(st.text(max_size=16), st.from_regex(r"(resnet|s2d)-\d{1,5}x\d{1,4}(-\w+)?", fullmatch=True)))
@example(name="resnet-0x9")
@example(name="s2d-48x65")
@example(name="../s2d-48x4")
def test_any_name_gives_what_it_says_or_an_input_error(name: str) -> None:
    try:
        spec = student_spec(name)
    except InputError:
        return
    plain = re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)  # resnet-08x2 says 8
    assert spec.name in (plain, f"{plain}-bn")


BAD = [
    *("resnet", "resnet-16x9-plain", "s2d-16x0", "s2d-48x4\n", "s2d-４８x4", "", "s2d-0x4", "s2d-8x2-f4", "s2d-8x2-k3"),
    *("s2d-8x2-u0", "s2d-8x2-u4096", "s2d-8x2-branch-f8", "s2d-8x2-plain-nostd", "s2d-8x2-notail-notail", "s2d-8x2-"),
    *("s2d-8x2-in2", "s2d-8x2-in1-notail", "s2d-8x2-nofilm-in1"),
]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        student_spec(name)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'unet'.*resnet-WxB.*s2d-CxB.*-branch.*fast, balanced, faithful"):
        student_spec("unet")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_names_of_s2d_students(preset: str) -> None:
    assert student_spec(preset) == student_spec(PRESETS[preset])
    assert student_spec(preset).family == "s2d"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.factor}")
def test_specs_survive_json_and_rebuild_the_same_tensors(spec: GeneratorSpec) -> None:
    again = GeneratorSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    shapes = [
        {name: tensor.shape for name, tensor in build_generator(one).state_dict().items()} for one in (spec, again)
    ]
    assert shapes[0] == shapes[1]


CHANGES: list[dict[str, Any]] = [
    {"family": "unet"},
    {"family": 3},
    {"width": 0},
    {"width": 4096},
    {"width": 8.0},
    {"width": True},
    {"width": "8"},
    {"blocks": -1},
    {"norm": "layer"},
    {"norm": "instance"},
    {"padding": "replicate"},
    {"factor": 3},
    {"dilations": [1, 2]},
    {"dilations": [1, 2, 0]},
    {"dilations": [1, 2, 10_000]},
    {"dilations": [1, 2, 4.0]},
    {"dilations": "124"},
    {"film_after": [4]},
    {"film_after": [0]},
    {"standardise": 1},
    {"in_channels": 0},
    {"out_channels": 17},
    {"downsamples": 6},
    {"blocks": 0, "dilations": [], "film_after": []},
    {"surprise": 1},
    {"inner_width": -1},
    {"inner_width": 4096},
    {"inner_width": True},
    {"branch": 1},
    {"kernel": 4},
    {"depthwise": "no"},
    {"refine": None},
    {"outer_kernel": 2},
    {"half_width": 2048},
    {"half_width": 16, "factor": 8},
    {"norm_once": True},
    {"norm_once": True, "norm": "instance-affine", "refine": False},
    {"norm_once": 1, "norm": "instance-affine"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_spec_from_json_refuses_what_cannot_be_built(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GeneratorSpec.from_dict(s2d_spec(8, 3).to_dict() | change)


ADDED = ("inner_width", "branch", "kernel", "depthwise", "refine", "outer_kernel", "half_width", "norm_once", "tanh")


@pytest.mark.parametrize("missing", sorted(s2d_spec(8, 3).to_dict().keys() - set(ADDED)))
def test_spec_from_json_refuses_a_missing_key_by_name(missing: str) -> None:
    values = s2d_spec(8, 3).to_dict()
    del values[missing]
    with pytest.raises(InputError, match=missing):
        GeneratorSpec.from_dict(values)


@pytest.mark.parametrize("since", range(len(ADDED)))
@pytest.mark.parametrize("name", ["resnet-4x2-in", "s2d-8x4-o3", "s2d-8x2-plain"])
def test_a_spec_of_before_the_options_gives_the_network_of_then(name: str, since: int) -> None:
    spec = student_spec(name)
    before = {key: value for key, value in spec.to_dict().items() if key not in ADDED[since:]}
    assert len(before) == len(spec.to_dict()) - len(ADDED) + since
    assert GeneratorSpec.from_dict(before) == spec


def test_a_resnet_has_none_of_the_s2d_parts() -> None:
    changes: list[dict[str, Any]] = [{"dilations": (1,)}, {"standardise": True}, {"film_after": (1,)}, {"kernel": 5}]
    changes += [
        {"inner_width": 8},
        {"branch": True},
        {"depthwise": True},
        {"refine": False},
        {"outer_kernel": 1},
        {"half_width": 8},
        {"norm_once": True},
        {"tanh": True},
    ]
    for change in changes:
        with pytest.raises(InputError, match="resnet"):
            replace(resnet_spec(4, 1), **change)


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
