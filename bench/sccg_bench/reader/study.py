"""Which slices a reader sees, in which order, under which names; the page, and the key that must stay apart from it.

Source: the paper's reader study, five steps from "not similar" to "very similar" (PAPER, "Results").
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from sccg_bench.page import data_uri, render
from sccg_bench.scale import to_u8
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

KEY_SCHEMA = "sccg-reader-key/1"
ANSWERS_SCHEMA = "sccg-reader-answers/1"
STEPS = ("not similar at all", "hardly similar", "undecided", "similar", "very similar")
"""Answers 1 to 5."""
Kind = Literal["real", "synthetic"]
_SHUFFLES = 200


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a case: the real slice and what the model made for it, both (1, H, W) in [-1, 1]."""

    case: str
    slice: str
    real: FloatArray
    synthetic: FloatArray


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of the page; ``id`` is all that the page and the answers know of it."""

    id: str
    kind: Kind
    case: str
    slice: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Study:
    """Pictures in the order that they are shown in; ``id`` ties page, key and answers together."""

    id: str
    direction: Direction
    seed: int
    shown: tuple[Shown, ...]

    @property
    def target(self) -> str:
        """``CT`` or ``MR``: what the pictures show or claim to show."""
        return modalities(self.direction)[1]


def make_study(levels: Sequence[Level], direction: Direction, seed: int, secret: str) -> Study:
    """Shuffle the real and the synthetic picture of every level under random names.

    Parameters
    ----------
    levels
        At least one; all pictures of one size, so that no size tells a kind.
    direction
        Says what the pictures show.
    seed
        The same seed, secret and levels give the same page.
    secret
        Mixed into the seed: what readers do not have (the bundle's hash), so that the seed alone gives nothing away.

    Raises
    ------
    InputError
        There is no level, or sizes differ.
    """
    sizes = {image.shape for level in levels for image in (level.real, level.synthetic)}
    if len(sizes) != 1:
        raise InputError(f"reader study: all slices must have one size, found {len(sizes)}; choose data of one size")
    mixed = hashlib.sha256(f"{seed}|{secret}".encode()).digest()
    draw = np.random.default_rng(int.from_bytes(mixed, "big"))
    name = draw.bytes(8).hex()
    pictures = [
        Shown(draw.bytes(8).hex(), kind, level.case, level.slice, grey_png(image))
        for level in levels
        for kind, image in _both(level)
    ]
    return Study(name, direction, seed, tuple(_shuffled(pictures, draw)))


def page(study: Study, simulated: bool = False) -> str:
    """The whole page as HTML: pictures inside, no network, nothing that tells real from synthetic.

    ``simulated`` says on the page that the slices are no patients'.
    """
    items = [{"id": each.id, "src": data_uri(each.png)} for each in study.shown]
    values = {"study": study.id, "schema": ANSWERS_SCHEMA, "items": items}
    return render(
        "reader/templates",
        "reader.html.j2",
        target=study.target,
        steps=STEPS,
        count=len(items),
        values=values,
        simulated=simulated,
    )


def key_json(study: Study, made_from: dict[str, Any]) -> str:
    """The key: which picture is which, and what it was made from. Not for readers."""
    items = {each.id: {"kind": each.kind, "case": each.case, "slice": each.slice} for each in study.shown}
    values = {"schema": KEY_SCHEMA, "study": study.id, "direction": study.direction, "seed": study.seed}
    return json.dumps(values | {"made_from": made_from, "items": items}, indent=2, ensure_ascii=False) + "\n"


def grey_png(image: FloatArray) -> bytes:
    """An 8-bit grey PNG of a slice (1, H, W) in [-1, 1].

    Stored without compression and without remarks: all pictures of a size have as many bytes, so that not even the
    length of a picture tells whether noise (real) or a smooth surface (synthetic) is in it.
    """
    stream = io.BytesIO()
    grey = np.clip(np.rint(to_u8(image)), 0, 255).astype(np.uint8)
    Image.fromarray(grey.reshape(image.shape[1:])).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def _both(level: Level) -> tuple[tuple[Kind, FloatArray], tuple[Kind, FloatArray]]:
    return ("real", level.real), ("synthetic", level.synthetic)


def _shuffled(pictures: list[Shown], draw: np.random.Generator) -> list[Shown]:
    """A random order; of some, the first in which no level follows itself (two of a kind side by side compare)."""
    order = list(pictures)
    for _ in range(_SHUFFLES):
        order = [pictures[index] for index in draw.permutation(len(pictures))]
        if all((one.case, one.slice) != (two.case, two.slice) for one, two in itertools.pairwise(order)):
            return order
    return order
