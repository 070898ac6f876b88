"""The program that a strongly typed engine is built from: half convolutions, float norms and means, same picture."""

from __future__ import annotations

import pytest
import torch
from small_models import TEACHER, fresh
from torch import nn

from sccg_export.layer_types import check_types
from sccg_export.trt_session import open_program
from sccg_export.typed_program import Rounded, program_types, typed_program
from sccg_runtime.errors import RefusedError
from sccg_teacher_student.networks.build import fold_for_export

only = pytest.mark.parametrize
EXAMPLE = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)


@only(
    ("name", "half", "norms"),
    [
        (TEACHER, {"CONVOLUTION HALF": 6, "DECONVOLUTION HALF": 2}, {"NORMALIZATION FLOAT": 7}),
        ("s2d-16x2", {"CONVOLUTION HALF": 13}, {"REDUCE FLOAT": 4}),
    ],
)
def test_fp16_programs_have_half_convolutions_and_float_norms(
    name: str, half: dict[str, int], norms: dict[str, int]
) -> None:
    network = fold_for_export(fresh(name))
    program = typed_program(network, "fp16", EXAMPLE)
    ran, layers = program_types(program)
    assert ran == {"fp16": sum(half.values())}
    assert layers == half | norms
    check_types("fp16", ran, layers)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters()), "the network is not changed"
    with torch.inference_mode():
        expected, output = network(EXAMPLE), program.module()(EXAMPLE)
    assert output.dtype == torch.float32
    assert 0 < (output - expected).abs().max() < 0.02


@only("name", ["s2d-16x2", "s2d-16x2-h8-nostd-in1-tanh"])
def test_without_a_card_fp16_is_rounded_as_it_is_typed(name: str) -> None:
    """PyTorch's own FP16 kernels, slow on a CPU, say what is right; FP16 weights alone are far nearer to float32."""
    network = fold_for_export(fresh(name))
    program = typed_program(network, "fp16", EXAMPLE)
    with torch.inference_mode():
        exact, typed = network(EXAMPLE), program.module()(EXAMPLE)
        rounded = Rounded(program).run(EXAMPLE)
    assert rounded.dtype == torch.float32
    error = (typed - exact).abs().mean()
    assert (rounded - typed).abs().mean() < error / 2
    assert 0.5 * error < (rounded - exact).abs().mean() < 2 * error


def test_values_beyond_fp16_are_refused_though_all_weights_fit() -> None:
    network = fold_for_export(fresh(TEACHER))
    second = [module for module in network.modules() if isinstance(module, nn.Conv2d)][1]
    with torch.no_grad():
        second.weight *= 4e5  # the instance norm behind it takes it back: in float32 the picture is the same
    session = open_program(network, (32, 32), {"fp16": 8})
    assert (session.description.engine, session.description.precision_ran) == ("PyTorch", {"fp16": 8})
    with pytest.raises(RefusedError, match="not finite"):
        session(EXAMPLE[0].numpy())


def test_fp32_programs_are_the_network() -> None:
    network = fold_for_export(fresh("s2d-16x2-plain"))
    program = typed_program(network, "fp32", EXAMPLE)
    assert program_types(program) == ({"fp32": 7}, {"CONVOLUTION FLOAT": 7})
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(EXAMPLE), network(EXAMPLE))
    with pytest.raises(RefusedError, match="fp16 was asked for, but TensorRT's network has convolutions of 7 fp32"):
        check_types("fp16", *program_types(program))


def test_a_weight_beyond_fp16_is_refused() -> None:
    network = fold_for_export(fresh("s2d-16x2-plain"))
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(RefusedError, match="too large for fp16: ask for --fp32"):
        typed_program(network, "fp16", EXAMPLE)
