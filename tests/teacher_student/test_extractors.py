"""The three kinds of features: VGG16 from a file, the generator's encoder, MIND."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from sccg_runtime.errors import CheckpointError, InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.extractors import EncoderFeatures, VggFeatures, make_extractor, mind, parse_features
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import resnet_spec, s2d_spec

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVOLUTIONS |= {17: (256, 512), 19: (512, 512), 21: (512, 512)}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """What torchvision's vgg16 has up to relu4_3, at random, and something after it."""
    draws = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(3, 3)}
    for number, (below, above) in CONVOLUTIONS.items():
        state[f"features.{number}.weight"] = torch.randn(above, below, 3, 3, generator=draws) / below**0.5 / 3
        state[f"features.{number}.bias"] = torch.randn(above, generator=draws) / 10
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg_gives_relu_3_1_4_1_and_4_3(tmp_path: Path, weights: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"vgg16{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        safetensors.torch.save_file(weights, path)
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    extractor, told = make_extractor(f"vgg:{path}", torch.nn.Identity())
    assert sha256(path) in told
    assert "vgg16." not in told, "the same weights may lie elsewhere tomorrow"
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    expected = []
    for number in CONVOLUTIONS:
        if number in (5, 10, 17):
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1))
        if number in (10, 17, 21):
            expected.append(x)
    for found, wanted in zip(extractor(image), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert [features.shape[1] for features in expected] == list(extractor.channels)


def test_a_vgg_file_that_does_not_fit_or_holds_code_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "vgg.pth"
    torch.save({key: value for key, value in weights.items() if key != "features.17.bias"}, path)
    with pytest.raises(CheckpointError, match=r"features\.17\.bias missing"):
        VggFeatures(path)
    torch.save(weights | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight is \(64, 1, 3, 3\), not"):
        VggFeatures(path)
    torch.save({"features": torch.nn.Conv2d(1, 1, 1)}, path)
    with pytest.raises(CheckpointError, match="code"):
        VggFeatures(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        VggFeatures(path)


@pytest.mark.parametrize("downsamples", [0, 1, 2])
def test_the_encoder_gives_the_stages_after_the_stem(downsamples: int) -> None:
    torch.manual_seed(0)
    generator = build_generator(resnet_spec(4, 3, "instance", downsamples=downsamples))
    extractor = EncoderFeatures(generator)
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    maps = extractor(image)
    sides = [16 // 2 ** min(stage, downsamples) for stage in (1, 2, 3)]
    assert [features.shape[-1] for features in maps] == sides
    assert [features.shape[1] for features in maps] == list(extractor.channels)
    end = 4 + 3 * downsamples + (3 - downsamples)
    torch.testing.assert_close(maps[-1], generator.model[:end](image))
    maps[-1].sum().backward()
    assert image.grad is not None
    assert all(parameter.grad is None for parameter in generator.parameters()), "the loss must not blind its encoder"


def test_the_encoder_follows_the_generator_and_leaves_its_statistics_alone() -> None:
    generator = build_generator(resnet_spec(4, 2, "batch")).train()
    extractor, image = EncoderFeatures(generator), torch.rand(1, 1, 16, 16)
    before, statistics = extractor(image)[0], generator.model[5].running_mean.clone()
    with torch.no_grad():
        generator.model[4].weight.mul_(torch.rand_like(generator.model[4].weight))
    assert not torch.allclose(extractor(image)[0], before)
    assert torch.equal(generator.model[5].running_mean, statistics)


@pytest.mark.parametrize("spec", [s2d_spec(4, 1), resnet_spec(4, 1, "instance", downsamples=1)])
def test_an_encoder_of_too_few_stages_is_refused(spec: object) -> None:
    with pytest.raises(InputError, match="use mind"):
        make_extractor("encoder", build_generator(spec))  # type: ignore[arg-type]


def test_mind_is_what_its_formula_says() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (6, 7))
    moves = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    rows, columns = image.shape
    inside = lambda r, c: (min(max(r, 0), rows - 1), min(max(c, 0), columns - 1))  # noqa: E731
    expected = np.zeros((8, rows, columns))
    for r in range(rows):
        for c in range(columns):
            distances = []
            for a, b in moves:
                patch = [inside(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                distances.append(np.mean([(image[p] - image[inside(p[0] + a, p[1] + b)]) ** 2 for p in patch]))
            likeness = np.exp(-np.array(distances) / max(np.mean(distances), 1e-4))
            expected[:, r, c] = likeness / likeness.max()
    np.testing.assert_allclose(mind(torch.tensor(image)[None, None])[0].numpy(), expected, atol=1e-10)


def test_mind_of_air_is_finite_and_has_a_finite_gradient() -> None:
    image = torch.full((1, 1, 8, 8), -1.0, requires_grad=True)
    mind(image).sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("text", ["vgg", "vgg19:x", "", "MIND"])
def test_unknown_features_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="none of vgg:FILE, encoder or mind"):
        parse_features(text)


def test_a_vgg_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"no file nowhere\.pth"):
        parse_features("vgg:nowhere.pth")
