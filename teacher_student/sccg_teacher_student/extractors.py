"""What structural consistency sees: three levels of features, from a VGG16 file, the generator itself, or MIND."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import load_state, load_tensors
from sccg_teacher_student.networks.frozen import frozen
from sccg_teacher_student.networks.resnet import ResnetGenerator

CHOICES = "vgg:FILE, encoder or mind"
_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512)
_RELU_3_1, _RELU_4_1, _RELU_4_3 = 11, 18, 22  # numbers of torchvision's ``features``
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MIND_SCALES = (2, 4, 8)


class Extractor(Protocol):
    """Gives three maps of features. Its own weights never learn; gradients flow to the slices."""

    @property
    def channels(self) -> Sequence[int]:
        """Of the three maps."""

    def __call__(self, image: Tensor) -> list[Tensor]:
        """(N, 1, H, W) in [-1, 1] -> three maps (N, C, h, w)."""


def parse_features(text: str) -> Path | None:
    """File of ``vgg:FILE``; None for ``encoder`` and ``mind`` (InputError for anything else)."""
    if text.startswith("vgg:"):
        path = Path(text.removeprefix("vgg:"))
        if not path.is_file():
            raise InputError(f"--structure-features {text}: no file {path}")
        return path
    if text not in ("encoder", "mind"):
        raise InputError(f"--structure-features {text!r} is none of {CHOICES}")
    return None


def make_extractor(text: str, generator: nn.Module) -> tuple[Extractor, str]:
    """The extractor that ``text`` names, and how the run's record tells it.

    Raises
    ------
    InputError
        The name is unknown, the file is not a VGG16, or ``generator`` is no ResNet.
    """
    path = parse_features(text)
    if path is not None:
        return VggFeatures(path), f"VGG16 relu3_1, relu4_1, relu4_3, weights of SHA-256 {sha256(path)}"
    if text == "mind":
        return MindFeatures(), f"MIND self-similarity at 1/{', 1/'.join(map(str, _MIND_SCALES))} of the resolution"
    return EncoderFeatures(generator), "first three stages of the generator's own encoder after its stem"


class VggFeatures(nn.Module):
    """VGG16 (Simonyan and Zisserman 2015) up to relu4_3, with weights of a file; nothing is downloaded.

    The file holds torchvision's ``vgg16`` state dict, as ``.safetensors`` or ``.pth``; what comes after relu4_3 in it
    is not read. Grey goes into all three channels, with ImageNet's mean and deviation taken off.
    """

    channels = (256, 512, 512)

    def __init__(self, path: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        below = 3
        for item in _VGG16:
            if isinstance(item, int):
                layers += [nn.Conv2d(below, item, 3, padding=1), nn.ReLU()]
                below = item
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        state = load_tensors(path)
        ours = {key: state[key] for key in self.state_dict() if key in state}
        load_state(self, ours, path.name)
        self.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """relu3_1 (1/4 of the resolution), relu4_1 and relu4_3 (1/8)."""
        x = ((image + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("std")
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in (_RELU_3_1, _RELU_4_1, _RELU_4_3):
                maps.append(x)
        return maps


class EncoderFeatures:
    """The first three stages after the stem of a generator in training: its down-samplings, then residual blocks.

    The weights of the moment are used without gradient, so the generator cannot please the loss by seeing less.
    """

    def __init__(self, generator: nn.Module) -> None:
        if not isinstance(generator, ResnetGenerator) or len(generator.ends) < 4:
            raise InputError("--structure-features encoder needs a ResNet generator of three stages or more; use mind")
        self._stages = [generator.stage(number) for number in range(4)]
        with torch.no_grad():
            example = next(generator.parameters()).new_zeros(1, 1, 64, 64)
            self.channels = [features.shape[1] for features in self(example)]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Maps at 1/2, 1/4, 1/4 of the resolution with two down-samplings; at full resolution without."""
        maps = [image]
        for stage in self._stages:
            maps.append(frozen(stage, maps[-1]))
        return maps[2:]


class MindFeatures:
    """MIND (modality independent neighbourhood descriptor) on slices averaged to three lower resolutions."""

    channels = (8, 8, 8)

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Maps at 1/2, 1/4, 1/8 of the resolution, 8 channels each."""
        return [mind(F.avg_pool2d(image, scale)) for scale in _MIND_SCALES]


def mind(image: Tensor, floor: float = 1e-4) -> Tensor:
    """Self-similarity of each pixel's 3x3 patch with the 8 patches next to it (Heinrich et al. 2012).

    exp(-D / V), scaled so that the largest of the eight is 1: D is the mean squared difference of the patches, V the
    mean of the eight D, at least ``floor``. Outside, the border is repeated. (N, 1, H, W) -> (N, 8, H, W) in (0, 1].
    """
    rows, columns = image.shape[2:]
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    moves = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
    moved = torch.cat([padded[:, :, down : down + rows, right : right + columns] for down, right in moves], dim=1)
    squared = F.pad((moved - image) ** 2, (1, 1, 1, 1), mode="replicate")
    distances = F.avg_pool2d(squared, 3, stride=1)
    likeness = torch.exp(-distances / distances.mean(1, keepdim=True).clamp(min=floor))
    return likeness / likeness.amax(1, keepdim=True)
