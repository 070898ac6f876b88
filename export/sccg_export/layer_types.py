"""Whether a TensorRT network or engine computes in the types that were asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sccg_runtime.contract import Precision
from sccg_runtime.errors import RefusedError

# As releases of the inspector spell types -> TensorRT's name. The longer come first: BFLOAT16 has FLOAT in it.
_TYPES = {
    "BFLOAT16": "BF16",
    "BF16": "BF16",
    "HALF": "HALF",
    "FP16": "HALF",
    "FLOAT": "FLOAT",
    "FP32": "FLOAT",
    "INT8": "INT8",
}
PRECISIONS = MappingProxyType({"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"})
_CONVOLUTIONS = ("conv", "fprop", "dgrad")  # dgrad: TensorRT's kernels for transposed convolution
_COPIES = ("reformat", "noop", "constant")


def check_types(precision: Precision, ran: Mapping[str, int], layers: Mapping[str, int]) -> None:
    """RefusedError where a network does not compute as asked; norms must be float32 in every precision.

    Parameters
    ----------
    ran
        Convolutions by precision.
    layers
        Layers by ``TYPE dtype``, such as ``"NORMALIZATION FLOAT"``.
    """
    wrong = {
        "fp32": set(ran) != {"fp32"},
        "fp16": set(ran) != {"fp16"},
        "int8": not ran.get("int8") or not set(ran) <= {"int8", "fp32"},
    }[precision]
    if wrong:
        told = ", ".join(f"{count} {name}" for name, count in ran.items()) or "none"
        raise RefusedError(f"{precision} was asked for, but TensorRT's network has convolutions of {told}")
    halves = [name for name in layers if name in ("NORMALIZATION HALF", "REDUCE HALF")]
    if halves:
        raise RefusedError(f"norms and means must stay in float32, but TensorRT's network has {', '.join(halves)}")


def engine_types(information: str) -> tuple[dict[str, int], dict[str, int]]:
    """(convolutions by precision, all layers by ``TYPE dtype`` of their first input) of a built engine.

    Parameters
    ----------
    information
        JSON of TensorRT's engine inspector, of an engine built with detailed profiling verbosity.

    Raises
    ------
    RefusedError
        The inspector tells names only, or something else than a list of layers.
    """
    try:
        found = json.loads(information)["Layers"]
        described = [_described(layer) for layer in found]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise RefusedError("TensorRT's engine inspector does not tell the types of the engine's layers") from None
    ran: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for kind, dtype, is_convolution in described:
        layers[f"{kind} {dtype}"] += 1
        if is_convolution:
            ran[PRECISIONS.get(dtype, dtype)] += 1
    return dict(sorted(ran.items())), dict(sorted(layers.items()))


def _described(layer: Mapping[str, Any]) -> tuple[str, str, bool]:
    """(type, type of the first input, whether it is a convolution) of a layer as the inspector describes it.

    Fused layers are named after what is in them, and their kernel after what it does.
    """
    kind = str(layer.get("ParameterType") or layer["LayerType"])
    inputs = layer["Inputs"] or layer["Outputs"]
    words = str(inputs[0].get("Format/Datatype") or inputs[0]["Datatype"]).upper()
    dtype = next((name for spelt, name in _TYPES.items() if spelt in words), words)
    text = " ".join(str(layer.get(key, "")) for key in ("LayerType", "ParameterType", "Name", "TacticName")).lower()
    moves = str(layer["LayerType"]).lower().startswith(_COPIES)
    return kind.upper(), dtype, not moves and any(word in text for word in _CONVOLUTIONS)
