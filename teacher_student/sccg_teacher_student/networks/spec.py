"""GeneratorSpec: the few numbers that rebuild a generator, and the names of students."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sccg_runtime.errors import InputError

Family = Literal["resnet", "s2d"]
Norm = Literal["instance", "instance-affine", "batch", "none"]
Padding = Literal["reflect", "zeros"]

# The best known students by purpose; every command that takes a student name takes these.
PRESETS: dict[str, str] = {"fast": "s2d-32x5", "balanced": "s2d-48x4", "faithful": "s2d-64x6"}
DEFAULT_STUDENT = "balanced"
NAME_HELP = "resnet-WxB[-bn|-in], s2d-CxB[-plain], " + ", ".join(PRESETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """Rebuilds a generator that maps slices (N, in_channels, H, W) to (N, 1, H, W), all in [-1, 1].

    Attributes
    ----------
    family
        ``"resnet"``: the CycleGAN layout (7x7 stem, stride-2 steps, residual blocks, transposed convolutions).
        ``"s2d"``: space-to-depth stem, residual blocks at 1/factor resolution, pixel-shuffle tail.
    width
        Channels after the stem (resnet: doubled by each down-sampling; s2d: everywhere).
    blocks
        Residual blocks.
    norm
        ``"instance"``, ``"instance-affine"``, ``"batch"`` (folds into the convolutions) or ``"none"``.
    padding
        Border of the 3x3 convolutions in the blocks (the resnet's 7x7 convolutions are always reflected).
    in_channels, out_channels
        Of the convolutions. Several output channels are averaged after the tanh.
    downsamples
        resnet: stride-2 steps (2 in CycleGAN, 0 in the paper's literal text).
    factor
        s2d: pixels of a side that become channels.
    dilations
        s2d: dilation of each block's first convolution.
    standardise
        s2d: subtract each slice's mean and divide by its standard deviation first, inside the network.
    film_after
        s2d: after these blocks (counted from 1) every channel is scaled and shifted by numbers computed from the
        channels' means over the whole slice (FiLM, Perez et al. 2018).
    """

    family: Family
    width: int
    blocks: int
    norm: Norm
    padding: Padding
    in_channels: int = 1
    out_channels: int = 1
    downsamples: int = 2
    factor: int = 4
    dilations: tuple[int, ...] = ()
    standardise: bool = False
    film_after: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise InputError(f"generator family {self.family!r} is none of {', '.join(get_args(Family))}")
        if self.norm not in get_args(Norm) or self.padding not in get_args(Padding):
            raise InputError(f"generator with norm {self.norm!r} and padding {self.padding!r} is not known")
        if not (1 <= self.width <= 1024 and 0 <= self.blocks <= 64):
            raise InputError(f"generator of width {self.width} and {self.blocks} blocks is out of range")
        if not (1 <= self.in_channels <= 16 and 1 <= self.out_channels <= 16 and 0 <= self.downsamples <= 5):
            raise InputError("generator channels or down-samplings are out of range")
        if self.family == "s2d":
            if self.factor not in (2, 4, 8) or len(self.dilations) != self.blocks:
                raise InputError("s2d generator needs factor 2, 4 or 8 and one dilation per block")
            if self.blocks < 1 or any(not 1 <= dilation <= 64 for dilation in self.dilations):
                raise InputError("s2d generator needs at least one block, and dilations of 1 to 64")
            if self.norm not in ("batch", "none") or any(not 1 <= block <= self.blocks for block in self.film_after):
                raise InputError("s2d generator: norm must be batch or none, film_after must name blocks")
        elif self.dilations or self.standardise or self.film_after:
            raise InputError("resnet generator has no dilations, standardisation or FiLM")

    @property
    def stride(self) -> int:
        """Both sides of a slice must be a multiple of this many pixels."""
        return int(self.factor if self.family == "s2d" else 2**self.downsamples)

    @property
    def name(self) -> str:
        """Name in tables: family, width x blocks, and what differs from the family's usual form."""
        if self.family == "s2d":
            plain = s2d_spec(self.width, self.blocks, plain=True)
            if self == plain:
                return f"s2d-{self.width}x{self.blocks}-plain"
            usual = self == s2d_spec(self.width, self.blocks)
            return f"s2d-{self.width}x{self.blocks}" + ("" if usual else "-custom")
        suffix = {"instance": "-in", "instance-affine": "-in-affine", "batch": "-bn", "none": "-nonorm"}[self.norm]
        flat = "" if self.downsamples == 2 else f"-d{self.downsamples}"
        return f"resnet-{self.width}x{self.blocks}{suffix}{flat}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"dilations": list(self.dilations), "film_after": list(self.film_after)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorSpec:
        """Build from JSON; keys must match the fields exactly (InputError otherwise)."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise InputError(f"generator spec: {', '.join(sorted(names ^ set(values)))} missing or unknown")
        for field in fields(cls):
            value, kind = values[field.name], field.type
            wanted = list if kind == "tuple[int, ...]" else {"int": int, "bool": bool}.get(str(kind), str)
            items = value if isinstance(value, list) else []
            if type(value) is not wanted or any(type(item) is not int for item in items):
                raise InputError(f"generator spec: {field.name} has the wrong type")
        given: dict[str, Any] = dict(values)
        return cls(**given | {name: tuple(given[name]) for name in ("dilations", "film_after")})


def resnet_spec(width: int, blocks: int, norm: Norm = "batch", *, downsamples: int = 2) -> GeneratorSpec:
    """The CycleGAN generator: ``resnet_spec(64, 9, "instance")`` is the paper's (text of section II, DESIGN)."""
    return GeneratorSpec(
        family="resnet", width=width, blocks=blocks, norm=norm, padding="reflect", downsamples=downsamples
    )


def s2d_spec(width: int, blocks: int, *, plain: bool = False) -> GeneratorSpec:
    """A student made for INT8 engines.

    Dilations 1, 2, 4, 8 in turn and FiLM after the middle and the last block, on the standardised slice; ``plain``
    leaves all three out.
    """
    return GeneratorSpec(
        family="s2d",
        width=width,
        blocks=blocks,
        norm="batch",
        padding="zeros",
        dilations=tuple(1 if plain else (1, 2, 4, 8)[block % 4] for block in range(blocks)),
        standardise=not plain,
        film_after=() if plain else tuple(sorted({max(1, blocks // 2), blocks})),
    )


def student_spec(name: str) -> GeneratorSpec:
    """Spec of a student's name.

    Raises
    ------
    InputError
        The name is none of those in ``NAME_HELP``.

    Examples
    --------
    >>> student_spec("resnet-16x9").norm
    'batch'
    """
    resolved = PRESETS.get(name, name)
    found = re.fullmatch(
        r"(resnet)-([0-9]{1,4})x([0-9]{1,2})(?:-(bn|in))?|(s2d)-([0-9]{1,4})x([0-9]{1,2})(-plain)?", resolved
    )
    if found is None:
        raise InputError(f"student {name!r} is not known; names are {NAME_HELP}")
    if found[1]:
        return resnet_spec(int(found[2]), int(found[3]), "instance" if found[4] == "in" else "batch")
    return s2d_spec(int(found[6]), int(found[7]), plain=bool(found[8]))
