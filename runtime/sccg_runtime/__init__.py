"""Converts MR and CT head series with a compressed generator, on the CPU, offline, without torch.

Three names are all that a program needs:

>>> from pathlib import Path
>>> from sccg_runtime import Contract, convert_series, load
>>> bundle = load(Path("balanced.sccg"))
>>> contract: Contract = bundle.contract
>>> contract.direction
'mr2ct'
>>> convert_series(Path("mr"), Path("synthetic-ct"), bundle).slices
22

They are imported when they are first used, so that ``import sccg_runtime`` costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime looks when it is loaded, whoever imports it

if TYPE_CHECKING:
    from sccg_runtime.bundle import load
    from sccg_runtime.contract import Contract
    from sccg_runtime.convert import convert_series

__version__ = "0.1.0"
__all__ = ["Contract", "convert_series", "load"]
_HOMES = {"Contract": "contract", "convert_series": "convert", "load": "bundle"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
