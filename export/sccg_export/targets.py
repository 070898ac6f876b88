"""The table of targets: name -> module, and what each needs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.graph import Graph
from sccg_runtime.contract import Precision
from sccg_runtime.errors import InputError

TARGETS: Mapping[str, str] = MappingProxyType(
    {"openvino": "sccg_export.openvino_target", "ort": "sccg_export.ort_target"}
)


class TargetModule(Protocol):
    """What a target's module offers."""

    PRECISIONS: tuple[Precision, ...]

    def build(
        self,
        graph: Graph,
        precision: Precision,
        size: tuple[int, int],
        calibration: Calibration | None,
        *,
        keep_float: tuple[str, ...] = (),
        saturation_safe: bool = False,
    ) -> Built:
        """Make the engine's files.

        Parameters
        ----------
        graph, precision, size, calibration
            What to build, for (rows, columns); ``calibration`` sets the ranges of ``int8``.
        keep_float
            Operations of the graph, by ONNX node name, that stay in float32 although ``int8`` is asked for, beside
            those that the target always leaves.
        saturation_safe
            Weights of seven bits in all layers, for CPUs whose INT8 kernels add in 16 bits and saturate.

        Raises
        ------
        InputError
            INT8 without calibration slices, or a name in ``keep_float`` that the graph does not have.
        """


def load_target(name: str, precision: Precision) -> TargetModule:
    """Import a target's module.

    Raises
    ------
    InputError
        There is no such target, or it does not have that precision.
    """
    if name not in TARGETS:
        raise InputError(f"target {name!r} is none of {', '.join(TARGETS)}")
    module = cast("TargetModule", importlib.import_module(TARGETS[name]))
    if precision not in module.PRECISIONS:
        raise InputError(f"target {name} has no {precision}; it has {', '.join(module.PRECISIONS)}")
    return module
