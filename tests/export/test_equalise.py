"""Equalised channels: the same function, nearer ranges, and eight bits that lose less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import head
from torch import nn

from sccg_export.calibration import Calibration
from sccg_export.equalise import LIMIT, STRENGTH, equalise
from sccg_export.export import graph_of
from sccg_export.graph import export_graph
from sccg_export.request import ExportRequest
from sccg_export.targets import load_target
from sccg_runtime.engine import cpu_properties, import_openvino
from sccg_runtime.errors import RefusedError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.build import build_generator, fold_for_export
from sccg_teacher_student.networks.s2d import S2DGenerator
from sccg_teacher_student.networks.spec import student_spec

IMAGES = [head(64, 64, seed) for seed in range(3)]


def used(name: str) -> nn.Module:
    """A student, not folded yet, with norms and FiLM that do something."""
    torch.manual_seed(0)
    network = build_generator(student_spec(name))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    nn.init.normal_(network.tail.weight, 0, 0.1)
    return network.eval()


def unequal(name: str) -> nn.Module:
    """The same with one channel of the stream thirty times as wide as the others."""
    network = used(name)
    assert isinstance(network, S2DGenerator)
    with torch.no_grad():
        network.stem_norm.weight[3] *= 30
        for block in network.blocks:
            block.conv1.weight[:, 3] /= 30
        network.tail_in.weight[:, 3] /= 30
    return network


def run(network: nn.Module, image: FloatArray) -> FloatArray:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(image)[None])[0].numpy())


def widths(network: S2DGenerator) -> torch.Tensor:
    """Largest value of each channel behind the stem."""
    with torch.inference_mode():
        images = torch.from_numpy(np.stack(IMAGES))
        return torch.relu(network.stem_norm(network.stem(images))).amax((2, 3)).mean(0)


@pytest.mark.parametrize(
    "name", ["s2d-8x3-h4-nostd-in1", "s2d-8x2-in1", "s2d-8x2-o3-in1", "s2d-8x2-dw3-in1", "s2d-8x2-g4-in1"]
)
def test_the_function_stays_the_same_while_weights_change(name: str) -> None:
    network = fold_for_export(used(name))
    before = [run(network, image) for image in IMAGES]
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert equalise(network, IMAGES)
    assert np.std(before) > 0.01
    for image, expected in zip(IMAGES, before, strict=True):
        np.testing.assert_allclose(run(network, image), expected, atol=1e-4)
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, weights[key])}
    assert {"blocks.0.conv1.weight", "blocks.1.conv1.weight"} <= changed


@pytest.mark.parametrize(
    "name",
    ["resnet-4x1-in", "s2d-8x2-u12-in1", "s2d-8x2-branch-in1", "s2d-8x2", "s2d-8x2-nofilm", "s2d-8x2-in"],
)
def test_networks_of_other_forms_are_left_alone(name: str) -> None:
    network = fold_for_export(build_generator(student_spec(name)))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert not equalise(network, IMAGES)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_ranges_come_nearer_by_the_strength() -> None:
    network = fold_for_export(unequal("s2d-8x2-nostd-in1"))
    before = widths(network)
    equalise(network, IMAGES)
    after = widths(network)
    others = [channel for channel in range(8) if channel != 3]
    assert before[3] > 10 * before[others].max()
    shrunk = (after[3] / after[others].mean()) / (before[3] / before[others].mean())
    assert shrunk == pytest.approx(30**-STRENGTH, rel=0.3)


def test_a_channel_that_is_never_used_stays_as_it_is() -> None:
    network = used("s2d-8x2-nostd-in1")
    with torch.no_grad():
        network.stem_norm.weight[2], network.stem_norm.bias[2] = 0, -1
        for block in network.blocks:
            block.conv2.weight[2], block.conv2.bias[2] = 0, -1
    folded = fold_for_export(network)
    expected = run(folded, IMAGES[0])
    equalise(folded, IMAGES)
    assert folded.stem_norm.bias[2] == -1
    np.testing.assert_allclose(run(folded, IMAGES[0]), expected, atol=1e-4)


def test_a_channel_that_is_nearly_never_used_is_not_blown_up() -> None:
    network = used("s2d-8x2-nostd-in1")
    with torch.no_grad():
        network.stem_norm.weight[2], network.stem_norm.bias[2] = 0, 1e-30
        for block in network.blocks:
            block.conv2.weight[2], block.conv2.bias[2] = 0, 0
    folded = fold_for_export(network)
    equalise(folded, IMAGES)
    assert folded.stem_norm.bias[2] == pytest.approx(LIMIT * 1e-30)
    assert (folded.stem_norm.weight / network.stem_norm.weight)[[0, 1, 3, 4]].min() > 0.3


@pytest.mark.parametrize(("precision", "equalised"), [("int8", True), ("fp32", False)])
def test_only_what_is_quantised_is_equalised(
    request_for: Callable[..., ExportRequest], precision: str, equalised: bool
) -> None:
    name = "s2d-8x2-nostd-in1"
    wanted = request_for("openvino", precision)
    checkpoint = replace(wanted.checkpoint, spec=student_spec(name), generator=used(name))
    graph = graph_of(replace(wanted, checkpoint=checkpoint))
    plain = fold_for_export(checkpoint.generator).state_dict()
    assert graph.equalised is equalised
    made = graph.network.state_dict()
    same = [torch.equal(tensor, made[key]) for key, tensor in plain.items()]
    assert (made.keys() == plain.keys()) is not equalised, "biases are centred, too"
    assert all(same) is not equalised


def test_a_wrong_factor_is_found_at_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module, _: object) -> bool:
        with torch.no_grad():
            network.stem.weight[0] *= 2
        return True

    monkeypatch.setattr("sccg_export.graph.equalise", wrong)
    with pytest.raises(RefusedError, match="differs from PyTorch"):
        export_graph(used("s2d-8x2-plain"), (64, 64), IMAGES)


def test_eight_bits_lose_less_of_an_equalised_network() -> None:
    network, calibration = unequal("s2d-8x2-nostd-in1"), Calibration(IMAGES, ("a", "b", "c"), 0)
    core = import_openvino().Core()

    def error(images: list[FloatArray]) -> float:
        built = load_target("openvino", "int8").build(
            export_graph(network, (64, 64), images), "int8", (64, 64), calibration
        )
        model = core.read_model(built.members["model.xml"], built.members["model.bin"])
        engine = core.compile_model(model, "CPU", cpu_properties("int8", 1, {"fp32": 1}))
        return float(np.mean([(engine(image[None])[0][0] - run(network, image)) ** 2 for image in IMAGES]))

    assert error(IMAGES) < 0.5 * error([])
