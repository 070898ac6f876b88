"""What a target gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sccg_runtime.bundle import Bundle
from sccg_runtime.engine import Session


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
    open
        How to run it at a size (rows, columns) where sccg-runtime cannot; None where it can.
    measured_on
        What ``open`` runs: the engine, or the graph that it was built from.
    details
        Facts about the build, for the contract's drift.
    beside
        Files that lie beside the bundle: suffix, put in place of the bundle's -> content.
    quantizer
        What set the ranges of ``int8``, with its version, such as ``"nncf 3.4.0"``; empty for float.
    note
        What the command says of the engine, or empty.
    """

    members: Mapping[str, bytes]
    engine: str
    engine_version: str
    precision_ran: dict[str, int] | None
    float_layers: tuple[str, ...]
    int8_layers: tuple[str, ...] = ()
    open: Callable[[Bundle, tuple[int, int]], Session] | None = None
    measured_on: Literal["engine", "graph"] = "engine"
    details: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    quantizer: str = ""
    note: str = ""
