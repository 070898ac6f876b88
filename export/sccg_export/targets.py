"""The table of targets: name -> module; what each needs stands in :mod:`sccg_export.requirements`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.graph import Graph
from sccg_export.requirements import QUANTIZERS, REQUIREMENTS, Quantizer, why_no_quantizer, why_not
from sccg_runtime.contract import Precision, Target, parse_target
from sccg_runtime.errors import InputError

TARGETS: Mapping[Target, str] = MappingProxyType(
    {
        "openvino": "sccg_export.openvino_target",
        "ort": "sccg_export.ort_target",
        "tensorrt-rtx": "sccg_export.tensorrt_rtx_target",
        "tensorrt": "sccg_export.tensorrt_target",
    }
)


class TargetModule(Protocol):
    """What a target's module offers."""

    def build(
        self,
        graph: Graph,
        precision: Precision,
        size: tuple[int, int],
        calibration: Calibration | None,
        *,
        keep_float: tuple[str, ...] = (),
        **options: str | bool,
    ) -> Built:
        """Make the engine's files.

        Parameters
        ----------
        graph, precision, size, calibration
            What to build, for (rows, columns); ``calibration`` sets the ranges of ``int8``.
        keep_float
            Operations of the graph, by ONNX node name, that stay in float although ``int8`` is asked for, beside
            those that the target always leaves.
        options
            The target's own: ``gpu_arch``, ``quantizer``, ``saturation_safe``.

        Raises
        ------
        InputError
            INT8 without calibration slices, or a name in ``keep_float`` that the graph does not have.
        """


def load_target(
    name: str, precision: Precision, gpu_arch: str | None = None, quantizer: Quantizer | None = None
) -> TargetModule:
    """Import a target's module.

    Raises
    ------
    InputError
        There is no such target, it does not have that precision, GPU architecture or quantiser, or a package or CPU
        feature that it needs is not here.
    """
    target = parse_target(name)
    precisions = REQUIREMENTS[target].precisions
    if precision not in precisions:
        raise InputError(f"target {target} has no {precision}; it has {', '.join(precisions)}")
    module = cast("TargetModule", importlib.import_module(TARGETS[target]))
    archs = getattr(module, "GPU_ARCHS", ())
    if gpu_arch is not None and gpu_arch not in archs:
        known = f"one of {', '.join(archs)}" if archs else "for --target tensorrt-rtx only"
        raise InputError(f"--gpu-arch {gpu_arch}: it is {known}")
    if quantizer is not None:
        _check_quantizer(target, precision, quantizer)
    reason = why_not(target, precision)
    if reason is not None:
        raise InputError(reason)
    return module


def int8_cpu_target(name: str) -> Target:
    """Return ``name`` as a target whose INT8 engines can be made here and run on a CPU (InputError if it is none)."""
    target = parse_target(name)
    if REQUIREMENTS[target].driver:
        raise InputError(f"--target {name}: its engines do not run on a CPU; say openvino or ort")
    load_target(name, "int8")
    return target


def parse_quantizer(text: str) -> Quantizer:
    """Return ``text`` as a quantiser (InputError if it is none)."""
    for name in QUANTIZERS:
        if text == name:
            return name
    raise InputError(f"--quantizer {text!r} is none of {', '.join(QUANTIZERS)}")


def _check_quantizer(target: Target, precision: Precision, quantizer: Quantizer) -> None:
    served = REQUIREMENTS[target].quantizers
    if not served:
        raise InputError(f"--quantizer {quantizer}: target {target} has no choice of quantisers: leave it out")
    if quantizer not in served:
        raise InputError(f"--quantizer {quantizer}: target {target} takes {', '.join(served)}")
    if precision != "int8":
        raise InputError(f"--quantizer {quantizer} is for --int8, not for {precision}")
    reason = why_no_quantizer(quantizer)
    if reason is not None:
        raise InputError(reason)
