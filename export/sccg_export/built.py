"""What a target gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, not yet in a bundle.

    Attributes
    ----------
    members
        Model members of the bundle by name.
    engine, engine_version
        Which engine will run it.
    precision_ran
        Convolutions by precision where the graph alone can tell; None where the engine must be asked.
    float_layers
        Names of the convolutions that stayed in float although INT8 was asked for.
    int8_layers
        Names of the convolutions and sums that read eight-bit maps: what can be put back to float with ``keep_float``.
    """

    members: Mapping[str, bytes]
    engine: str
    engine_version: str
    precision_ran: dict[str, int] | None
    float_layers: tuple[str, ...]
    int8_layers: tuple[str, ...] = ()
