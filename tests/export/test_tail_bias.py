"""The last convolution's bias after quantisation: known shifts are found, and eight bits leave less of a grid."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_models import head
from torch import nn

from sccg_export.calibration import Calibration
from sccg_export.graph import export_graph
from sccg_export.tail_bias import correct_tail_bias
from sccg_export.targets import load_target
from sccg_runtime.engine import cpu_properties, openvino_core
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import student_spec

IMAGES = [head(64, 64, seed) for seed in range(4)]


def student(name: str = "s2d-8x2-nostd-in") -> Any:
    torch.manual_seed(0)
    network = build_generator(student_spec(name))
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            nn.init.uniform_(module.bias, -0.5, 0.5)
    nn.init.normal_(network.tail.weight, 0, 0.1)
    return network.eval()


def model_of(network: nn.Module) -> Any:
    return openvino_core().read_model(export_graph(network, (64, 64)).to_bytes())


def outputs(model: Any) -> FloatArray:
    model.reshape([1, 1, 64, 64])
    engine = openvino_core().compile_model(model, "CPU", cpu_properties("int8", 1, {"fp32": 1}))
    return np.concatenate([engine(image[None])[0] for image in IMAGES])


@pytest.mark.parametrize("end", ["", "-tanh"])
def test_a_shift_of_each_channel_is_taken_back(end: str) -> None:
    network = student(f"s2d-8x2-nostd-in{end}")
    shifted = copy.deepcopy(network)
    with torch.no_grad():
        shifted.tail.bias += torch.linspace(-0.05, 0.05, 16)
    model, reference = model_of(shifted), model_of(network)
    wanted = outputs(reference)
    assert np.abs(outputs(model) - wanted).max() > 0.04
    correct_tail_bias(model, reference, IMAGES)
    np.testing.assert_allclose(outputs(model), wanted, atol=1e-4)


@pytest.mark.parametrize("end", ["", "-tanh"])
def test_what_saturation_of_the_float_output_hides_does_not_count(end: str) -> None:
    network = student(f"s2d-8x2-nostd-in{end}")
    with torch.no_grad():
        network.tail.bias[3] = 50
    shifted = copy.deepcopy(network)
    with torch.no_grad():
        shifted.tail.bias[3] = 0
    model, reference = model_of(shifted), model_of(network)
    before = outputs(model)
    assert np.abs(before[:, 0, ::4, 3::4]).max() < 1
    correct_tail_bias(model, reference, IMAGES)
    np.testing.assert_allclose(outputs(model), before, atol=1e-4)


def test_a_pixel_counts_by_the_slope_of_the_tangent() -> None:
    network = student("s2d-8x2-nostd-in-tanh")
    with torch.no_grad():
        network.tail.weight *= 5
    wider = copy.deepcopy(network)
    with torch.no_grad():
        wider.tail.weight *= 1.2
    model, reference = model_of(wider), model_of(network)
    wanted = outputs(reference).astype(np.float64)
    correct_tail_bias(model, reference, IMAGES)
    errors = np.arctanh(wanted) - np.arctanh(outputs(model).astype(np.float64))
    slope = 1 - wanted**2
    phases = [(slice(None), 0, slice(row, None, 4), slice(column, None, 4)) for row in range(4) for column in range(4)]
    means = [np.average(errors[phase], weights=slope[phase]) for phase in phases]
    np.testing.assert_allclose(means, 0, atol=1e-3)
    assert max(abs(errors[phase].mean()) for phase in phases) > 1e-2, "all pixels alike give another bias"


def test_a_network_without_a_last_bias_is_left_alone() -> None:
    network = student()
    plain = copy.deepcopy(network)
    plain.tail.bias = None
    model = model_of(plain)
    before = outputs(model)
    correct_tail_bias(model, model_of(network), IMAGES)
    np.testing.assert_array_equal(outputs(model), before)


def test_int8_engines_leave_less_of_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    network = student()
    graph, calibration = export_graph(network, (64, 64)), Calibration(IMAGES, ("a", "b", "c", "d"), 0)
    wanted = outputs(model_of(network))
    inside = np.abs(wanted) < 0.99

    def grid() -> float:
        built = load_target("openvino", "int8").build(graph, "int8", (64, 64), calibration)
        model = openvino_core().read_model(built.members["model.xml"], built.members["model.bin"])
        error = np.where(inside, outputs(model) - wanted, 0)
        means = [error[:, 0, y::4, x::4].sum() / inside[:, 0, y::4, x::4].sum() for y in range(4) for x in range(4)]
        return float(np.abs(means).max())

    corrected = grid()
    monkeypatch.setattr("sccg_export.openvino_target.correct_tail_bias", lambda *_: None)
    assert corrected < 0.5 * grid()
