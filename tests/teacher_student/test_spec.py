"""Students' names, and specs as JSON, of today and of before."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_networks import SPECS

from sccg_runtime.errors import InputError
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import PRESETS, GeneratorSpec, resnet_spec, s2d_spec, student_spec


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
    steps=st.one_of(st.just(""), *(st.integers(1, 1024).map(f"-{kind}{{}}".format) for kind in "hs")),
    inner=st.one_of(st.just(""), st.integers(1, 1024).map("-u{}".format)),
    branch=st.sampled_from(["", "-branch"]),
    kernel=st.sampled_from(["", "-k5", "-k7", "-dw3", "-dw5", "-dw7", "-g"]),
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
    steps: str,
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
    steps = "" if factor else steps
    half, full = (steps if steps[1:2] == kind else "" for kind in "hs")
    tail = "" if off.endswith("-in1") else tail
    group = 0
    if kernel == "-g":  # a prime number of channels, or one, has no parts
        fewest, shared = min(int(inner[2:] or width), width), math.gcd(int(inner[2:] or width), width)
        group = next((part for part in (16, 7, 5, 3, 2) if shared % part == 0 and part < fewest), 0)
        kernel = f"-g{group}" if group else ""
    name = f"s2d-{width}x{blocks}{factor}{outer}{steps}{inner}{branch}{kernel}{off}{tail}{tanh}"
    spec = student_spec(name)
    assert spec.name == name
    assert (spec.factor, spec.half_width, spec.full_width, spec.inner_width) == tuple(
        int(text[2:] or usual) for text, usual in ((factor, 4), (half, 0), (full, 0), (inner, 0))
    )
    assert spec.outer_kernel == (3 if outer or plain else 1)
    assert (spec.branch, spec.refine, spec.tanh) == (bool(branch), not tail, bool(tanh))
    assert (spec.kernel, spec.depthwise) == (3 if group else int(kernel[-1:] or 3), "dw" in kernel)
    assert spec.group_width == group
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
    {"group_width": -1},
    {"group_width": 1},
    {"group_width": 8},
    {"group_width": 3},
    {"group_width": 4, "inner_width": 6},
    {"group_width": 6, "inner_width": 12},
    {"group_width": 8, "inner_width": 16},
    {"group_width": 4, "kernel": 5},
    {"group_width": 4, "depthwise": True},
    {"group_width": "4"},
    {"refine": None},
    {"outer_kernel": 2},
    {"half_width": 2048},
    {"half_width": 16, "factor": 8},
    {"full_width": -1},
    {"full_width": 16, "factor": 2},
    {"full_width": 16, "half_width": 16},
    {"norm_once": True},
    {"norm_once": True, "norm": "instance-affine", "refine": False},
    {"norm_once": 1, "norm": "instance-affine"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_spec_from_json_refuses_what_cannot_be_built(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GeneratorSpec.from_dict(s2d_spec(8, 3).to_dict() | change)


ADDED = (
    *("inner_width", "branch", "kernel", "depthwise", "refine", "outer_kernel", "half_width", "norm_once", "tanh"),
    *("group_width", "full_width"),
)


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
        {"group_width": 4},
        {"refine": False},
        {"outer_kernel": 1},
        {"half_width": 8},
        {"full_width": 8},
        {"norm_once": True},
        {"tanh": True},
    ]
    for change in changes:
        with pytest.raises(InputError, match="resnet"):
            replace(resnet_spec(4, 1), **change)
