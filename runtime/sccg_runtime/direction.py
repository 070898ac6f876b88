"""``mr2ct`` makes a synthetic CT from an MR; ``ct2mr`` a synthetic MR from a CT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Modality

Direction = Literal["mr2ct", "ct2mr"]
REVERSE: Mapping[Direction, Direction] = {"mr2ct": "ct2mr", "ct2mr": "mr2ct"}


def parse_direction(text: str) -> Direction:
    """Return ``text`` as a direction.

    Raises
    ------
    InputError
        It is neither ``mr2ct`` nor ``ct2mr``.
    """
    if text not in get_args(Direction):
        raise InputError(f"direction {text!r} is not mr2ct or ct2mr")
    return cast("Direction", text)


def modalities(direction: Direction) -> tuple[Modality, Modality]:
    """(input, output) modality of a direction."""
    return ("MR", "CT") if direction == "mr2ct" else ("CT", "MR")
