"""GeneratorSpec: the few numbers that rebuild a generator, and the names of students."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from sccg_runtime.errors import InputError

Family = Literal["resnet", "s2d"]
Norm = Literal["instance", "instance-affine", "batch", "none"]
Padding = Literal["reflect", "zeros"]

# The best known students by purpose; every command that takes a student name takes these.
PRESETS: dict[str, str] = {
    "fast": "s2d-64x3-h16-g16-nostd-in1-tanh",
    "balanced": "s2d-64x2-h16-nostd-in1-tanh",
    "faithful": "s2d-64x5-h16-nostd-in1-tanh",
}
DEFAULT_STUDENT = "balanced"
_WHOLE_SLICE = "[-plain or [-nostd][-nodil][-nofilm|-in|-in1]]"
S2D_OPTIONS = f"[-f2|-f8][-o3][-hN|-sN][-uN][-branch][-k5|-k7|-dw3|-dw5|-dw7|-gN]{_WHOLE_SLICE}[-notail][-tanh]"
NAME_HELP = f"resnet-WxB[-bn|-in], s2d-CxB{S2D_OPTIONS}, {', '.join(PRESETS)}"
BRANCH_STRIDE = 16
_RESNET = re.compile(r"resnet-(?P<width>[0-9]{1,4})x(?P<blocks>[0-9]{1,2})(?:-(?P<norm>bn|in))?")
_S2D = re.compile(
    r"s2d-(?P<width>[0-9]{1,4})x(?P<blocks>[0-9]{1,2})(?:-f(?P<factor>[28]))?(?P<outer>-o3)?"
    r"(?:-h(?P<half>[1-9][0-9]{0,3})|-s(?P<full>[1-9][0-9]{0,3}))?(?:-u(?P<inner>[1-9][0-9]{0,3}))?"
    r"(?P<branch>-branch)?(?:-(?P<kernel>k[57]|dw[357])|-g(?P<group>[1-9][0-9]{0,3}))?"
    r"(?:(?P<plain>-plain)|(?P<nostd>-nostd)?(?P<nodil>-nodil)?(?:(?P<nofilm>-nofilm)|(?P<instance>-in1?))?)"
    r"(?P<notail>-notail)?(?P<tanh>-tanh)?"
)
# Fields that specs written by earlier versions may lack; such a network has these parts in their default form.
_ADDED = frozenset(
    (
        *("inner_width", "branch", "kernel", "depthwise", "group_width", "refine", "outer_kernel", "half_width"),
        *("norm_once", "tanh", "full_width"),
    )
)
_PLAIN = ("dilations", "standardise", "film_after", "outer_kernel")  # where a plain student differs from the usual one
_S2D_PARTS = _ADDED.union(_PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """Rebuilds a generator that maps slices (N, in_channels, H, W) to (N, 1, H, W), all in [-1, 1].

    Attributes
    ----------
    family
        ``"resnet"``: the CycleGAN layout (7x7 stem, stride-2 steps, residual blocks, transposed convolutions).
        ``"s2d"``: space-to-depth stem, residual blocks at 1/factor resolution, pixel-shuffle tail.
    width
        Channels after the stem (resnet: doubled by each down-sampling; s2d: everywhere, but see ``inner_width``).
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
    inner_width
        s2d: above 0, the blocks have that many channels and work at half the stem's resolution, and their result is
        added to the stem's (U-Net form); 0: they work at the stem's resolution.
    branch
        s2d: before the blocks, two more at 1/16 of the slice's resolution, with twice the stem's channels and a FiLM.
    kernel, depthwise
        s2d: size of each block's first convolution, and whether it sees one channel at a time; the second is 1x1 then.
    group_width
        s2d: above 1, the first convolution of each block (but those of the branch) sees so many channels at a time
        (Xie et al. 2017), and the second is 1x1; the convolution of ``refine`` sees as many. 0: they see all.
    refine
        s2d: one more 3x3 convolution before the last.
    outer_kernel
        s2d: size of the first and the last convolution, at the blocks' resolution: 1 or 3 (with a ``half_width``: of
        the last only).
    half_width
        s2d, factor 4: above 0, the stem takes two steps, with that many channels at half the slice's resolution in
        between, normalised and rectified; 0: one step.
    full_width
        s2d, factor 4, in the place of ``half_width``: above 0, the stem takes three steps, as the resnet's does: 7x7
        with that many channels at the slice's own resolution, twice as many at half of it, then the rest.
    norm_once
        s2d with instance norm: blocks have one norm, after their first convolution, and what they add stays as it is;
        one more follows the last convolution but one.
    tanh
        s2d: a hyperbolic tangent brings the output into [-1, 1], as in every resnet; otherwise, a clip does.
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
    inner_width: int = 0
    branch: bool = False
    kernel: int = 3
    depthwise: bool = False
    group_width: int = 0
    refine: bool = True
    outer_kernel: int = 3
    half_width: int = 0
    norm_once: bool = False
    tanh: bool = False
    full_width: int = 0

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
            if self.norm == "instance" or any(not 1 <= block <= self.blocks for block in self.film_after):
                raise InputError(
                    "s2d generator: norm must be batch, instance-affine or none, film_after must name blocks"
                )
            if self.kernel not in (3, 5, 7) or self.outer_kernel not in (1, 3) or not 0 <= self.inner_width <= 1024:
                raise InputError("s2d generator: kernel must be 3, 5 or 7, outer_kernel 1 or 3, inner_width 0 to 1024")
            for steps in (self.half_width, self.full_width):
                if not 0 <= steps <= 1024 or (steps and self.factor != 4):
                    raise InputError(
                        "s2d generator: half_width and full_width must be 0 to 1024, and factor 4 where one is above 0"
                    )
            if self.half_width and self.full_width:
                raise InputError("s2d generator: half_width (-hN) or full_width (-sN), not both")
            if self.group_width:
                self._check_groups()
            if self.norm_once and not (self.norm == "instance-affine" and self.refine):
                raise InputError("s2d generator: norm_once (-in1) needs norm instance-affine, and refine (no -notail)")
        elif any(getattr(self, field.name) != field.default for field in fields(self) if field.name in _S2D_PARTS):
            raise InputError("resnet generator has none of the s2d family's parts, such as dilations or FiLM")

    def _check_groups(self) -> None:
        if self.kernel != 3 or self.depthwise:
            raise InputError("s2d generator: with a group_width (-gN), kernel must be 3 and not depthwise")
        for channels in (self.inner_width or self.width, *((self.width,) if self.refine else ())):
            if not 1 < self.group_width < channels or channels % self.group_width:
                raise InputError(f"s2d generator: group_width (-gN) must be a part of {channels} channels")

    @property
    def stride(self) -> int:
        """Both sides of a slice must be a multiple of this many pixels."""
        if self.family == "resnet":
            return int(2**self.downsamples)
        return BRANCH_STRIDE if self.branch else self.factor * (2 if self.inner_width else 1)

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the network takes slices of ``size`` (rows, columns): a map of one pixel has no variance."""
        return not any(side % self.stride or side < 2 * self.stride for side in size)

    @property
    def name(self) -> str:
        """Name in tables: family, width x blocks, and what differs from the family's usual form."""
        if self.family == "s2d":
            name = f"s2d-{self.width}x{self.blocks}"
            full = name + "".join(f"-{option}" for option in self._s2d_options())
            return full if self == student_spec(full) else f"{name}-custom"
        suffix = {"instance": "-in", "instance-affine": "-in-affine", "batch": "-bn", "none": "-nonorm"}[self.norm]
        flat = "" if self.downsamples == 2 else f"-d{self.downsamples}"
        return f"resnet-{self.width}x{self.blocks}{suffix}{flat}"

    def _s2d_options(self) -> list[str]:
        """Suffixes of the name, in their order."""
        usual = s2d_spec(self.width, self.blocks, norm=self.norm)
        chosen = {
            "nostd": not self.standardise,
            "nodil": self.dilations != usual.dilations,
            "nofilm": usual.film_after and not self.film_after,
            "in1": self.norm_once,
            "in": self.norm == "instance-affine" and not self.norm_once,
        }
        plain = s2d_spec(self.width, self.blocks, plain=True)
        if self.norm != "instance-affine" and all(getattr(self, part) == getattr(plain, part) for part in _PLAIN):
            usual, chosen = plain, {"plain": True}
        given = {
            f"f{self.factor}": self.factor != usual.factor,
            f"o{self.outer_kernel}": self.outer_kernel != usual.outer_kernel,
            f"h{self.half_width}": self.half_width > 0,
            f"s{self.full_width}": self.full_width > 0,
            f"u{self.inner_width}": self.inner_width > 0,
            "branch": self.branch,
            f"g{self.group_width}": self.group_width > 0,
            f"{'dw' if self.depthwise else 'k'}{self.kernel}": self.depthwise or self.kernel != usual.kernel,
        }
        last = {"notail": not self.refine, "tanh": self.tanh}
        return [name for part in (given, chosen, last) for name, there in part.items() if there]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"dilations": list(self.dilations), "film_after": list(self.film_after)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorSpec:
        """Build from JSON; keys must match the fields exactly, or those of earlier versions (InputError otherwise)."""
        names = {field.name for field in fields(cls)}
        if wrong := (names ^ set(values)) - (_ADDED - set(values)):
            raise InputError(f"generator spec: {', '.join(sorted(wrong))} missing or unknown")
        for field in fields(cls):
            if field.name not in values:
                continue
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


def s2d_spec(width: int, blocks: int, *, plain: bool = False, norm: Norm = "batch") -> GeneratorSpec:
    """A student made for INT8 engines.

    Dilations 1, 2, 4, 8 in turn and FiLM after each block, on the standardised slice; ``plain`` leaves all three out.
    Instance norm takes the place of FiLM, as it looks at the whole slice, too. The first and the last convolution see
    one place each (1x1): what lies between looks further, and these two, which engines compute in float, cost a ninth
    (``plain``, the control: 3x3).
    """
    films = not plain and norm != "instance-affine"
    return GeneratorSpec(
        family="s2d",
        width=width,
        blocks=blocks,
        norm=norm,
        padding="zeros",
        dilations=tuple(1 if plain else (1, 2, 4, 8)[block % 4] for block in range(blocks)),
        standardise=not plain,
        film_after=tuple(range(1, blocks + 1)) if films else (),
        outer_kernel=3 if plain else 1,
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
    if found := _RESNET.fullmatch(resolved):
        return resnet_spec(int(found["width"]), int(found["blocks"]), "instance" if found["norm"] == "in" else "batch")
    found = _S2D.fullmatch(resolved)
    if found is None:
        raise InputError(f"student {name!r} is not known; names are {NAME_HELP}")
    norm: Norm = "instance-affine" if found["instance"] else "batch"
    usual = s2d_spec(int(found["width"]), int(found["blocks"]), plain=bool(found["plain"]), norm=norm)
    kernel = found["kernel"] or f"k{usual.kernel}"
    return replace(
        usual,
        factor=int(found["factor"] or usual.factor),
        outer_kernel=3 if found["outer"] else usual.outer_kernel,
        half_width=int(found["half"] or 0),
        full_width=int(found["full"] or 0),
        norm_once=found["instance"] == "-in1",
        inner_width=int(found["inner"] or 0),
        branch=bool(found["branch"]),
        kernel=int(kernel[-1]),
        depthwise=kernel.startswith("dw"),
        group_width=int(found["group"] or 0),
        standardise=usual.standardise and not found["nostd"],
        dilations=(1,) * usual.blocks if found["nodil"] else usual.dilations,
        film_after=() if found["nofilm"] else usual.film_after,
        refine=not found["notail"],
        tanh=bool(found["tanh"]),
    )
