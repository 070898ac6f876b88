"""Target ``openvino``: FP32; weights stored in FP16; arithmetic in BF16; or INT8, by NNCF or out of a QDQ graph.

FP16 halves the file, not the time: CPUs without FP16 arithmetic compute it in float32. The arithmetic is pinned by
:func:`sccg_runtime.engine.cpu_properties`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sccg_export.built import Built
from sccg_export.calibration import Calibration, needed
from sccg_export.graph import Graph
from sccg_export.pair_sums import fit_pairs, float_weights
from sccg_export.requirements import REQUIREMENTS, Quantizer, quantizer_version
from sccg_export.tail_bias import CONVOLUTIONS, correct_tail_bias
from sccg_export.unsigned_qdq import layers, quantise
from sccg_runtime.contract import Precision
from sccg_runtime.engine import EngineFiles, import_openvino, openvino_core, openvino_version
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

_NOTES: Mapping[Precision, str] = MappingProxyType(
    {
        "fp16": "fp16: weights are stored in FP16; arithmetic stays float32 on the CPU",
        "int8": "int8: what is not computed in eight bits runs in bf16 where the CPU has it, else in float32",
        "bf16": "bf16: weights are stored in float32; convolutions compute in bfloat16",
    }
)
_MOVING = frozenset({"Pad", "Transpose", "Reshape", "SpaceToDepth", "DepthToSpace", "Slice", "StridedSlice"})


def build(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    calibration: Calibration | None,
    *,
    keep_float: tuple[str, ...] = (),
    quantizer: Quantizer = REQUIREMENTS["openvino"].quantizers[0],
) -> Built:
    """Make OpenVINO's ``model.xml`` and ``model.bin`` at ``size`` (rows, columns); see :class:`TargetModule`.

    NNCF knows OpenVINO's own operations; the other quantisers make the QDQ graph that target ``ort`` gets.
    :mod:`sccg_export.pair_sums` makes all of them safe for old CPUs.

    Raises
    ------
    InputError
        INT8 without calibration slices, or an unknown name in ``keep_float``.
    """
    openvino = import_openvino()
    left: Sequence[str] = ()
    quantised: Sequence[str] = ()
    weights: Mapping[str, FloatArray] = {}
    if precision != "int8":
        model = openvino_core().read_model(graph.to_bytes())
    elif quantizer == "nncf":
        calibration = needed(calibration)
        model = openvino_core().read_model(graph.to_bytes())
        model.reshape([1, 1, *calibration.images[0].shape[-2:]])
        _reshape_group_weights(model)
        weights = float_weights(model)
        model = _quantise(model, calibration, keep_float)
        _leave_norms_unrounded(model)
        left = _convolutions(model, quantised=False)
        quantised = (*_convolutions(model, quantised=True), *_quantised_sums(model))
    else:
        qdq = quantise(graph, needed(calibration), keep_float, quantizer=quantizer, saturation_safe=False)
        convolutions, left, sums = layers(qdq)
        quantised = (*convolutions, *sums)
        model = openvino_core().read_model(qdq.SerializeToString())
    if calibration is not None:
        fit_pairs(model, weights)
        correct_tail_bias(model, openvino_core().read_model(graph.to_bytes()), calibration.images)
    model.reshape([1, 1, *size])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
        members = {name: (path.parent / name).read_bytes() for name in ("model.xml", "model.bin")}
    return Built(
        members=members,
        engine="OpenVINO",
        engine_version=openvino_version(),
        precision_ran=None,
        float_layers=tuple(left),
        int8_layers=tuple(quantised),
        quantizer=quantizer_version(quantizer) if precision == "int8" else "",
        note=_NOTES.get(precision, ""),
    )


def float32_files(graph: Graph, size: tuple[int, int], name: str) -> EngineFiles:
    """The engine of a float32 graph, made at ``size``."""
    members = build(graph, "fp32", size, None).members
    return EngineFiles(name=name, target="openvino", precision="fp32", precision_ran=None, members=members)


def _quantise(model: Any, calibration: Calibration, keep_float: tuple[str, ...]) -> Any:
    """Per-channel symmetric weights, per-tensor activations; ranges from all calibration slices."""
    kept = _kept_float(model, keep_float)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        # its progress bar goes to stdout, where results belong
        shown = sys.stderr if sys.stderr.isatty() else stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
        stack.enter_context(contextlib.redirect_stdout(shown))
        import nncf

        nncf.set_log_level(logging.ERROR)
        dataset = nncf.Dataset([image[None] for image in calibration.images])
        return nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(calibration.images),
            ignored_scope=nncf.IgnoredScope(names=kept),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
        )


def _reshape_group_weights(model: Any) -> None:
    """Weights of grouped convolutions become constants of the shape that they are used in.

    NNCF stores constants in eight bits, but not what a reshape, as ONNX needs it, makes of them.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GroupConvolution":
            weight = node.input_value(1).get_node()
            if weight.get_type_name() != "Reshape":
                continue
            stored = weight.input_value(0).get_node()
            if stored.get_type_name() != "Constant":
                continue
            values = np.array(stored.get_data()).reshape(weight.get_output_shape(0))
            node.input(1).replace_source_output(import_openvino().opset15.constant(values).output(0))


def _leave_norms_unrounded(model: Any) -> None:
    """Sums take what a norm gives as it is.

    It is computed in float and added in float: rounding it in between, as NNCF does, only loses.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add":
            continue
        for value in node.inputs():
            rounding = value.get_source_output().get_node()
            if rounding.get_type_name() == "FakeQuantize" and _from_norm(rounding.input_value(0)):
                value.replace_source_output(rounding.input_value(0))
    model.validate_nodes_and_infer_types()


def _from_norm(value: Any) -> bool:
    """Whether a norm gave a map; its scale and shift may lie in between."""
    node = value.get_node()
    while node.get_type_name() in ("Multiply", "Add"):
        maps = [one.get_node() for one in node.input_values() if len(shape := one.get_shape()) == 4 and shape[2] > 1]
        if len(maps) != 1:
            return False
        (node,) = maps
    return bool(node.get_type_name() == "MVN")


def _kept_float(model: Any, keep_float: tuple[str, ...]) -> list[str]:
    """Operations that lose more by eight bits than they gain in time, by OpenVINO's names.

    - Everything up to and with the first convolution: a slice's mean and variance in eight bits are ruinous, and so is
      its input, whose brightest pixel decides how finely soft tissue is told apart; in a stem of two steps, with the
      second.
    - The last convolution and what follows it: that is the picture, and its outliers would decide how finely it is
      rounded.
    - What works on one number per channel (FiLM): a few microseconds, and every pixel depends on it.
    - Products and sums of a map with such numbers: three roundings in a row where one is enough.
    - Instance norm: where a map is nearly constant, as at the vertex, it divides by little and magnifies any rounding.
    """
    nodes = model.get_ordered_ops()
    unknown = sorted(set(keep_float) - {_graph_name(node) for node in nodes})
    if unknown:
        raise InputError(f"the graph has no operation named {', '.join(unknown)} to keep in float")
    computing = [node for node in nodes if node.get_type_name() not in ("Constant", "Parameter", "Result")]
    places = [place for place, node in enumerate(computing) if node.get_type_name() in CONVOLUTIONS]
    stem = places[1 if _two_steps(*(computing[place] for place in places[:2])) else 0]
    return [
        str(node.get_friendly_name())
        for place, node in enumerate(computing)
        if not stem < place < places[-1]
        or node.get_type_name() == "MVN"
        or _graph_name(node) in keep_float
        or _touches_vector(node)
    ]


def _two_steps(first: Any, second: Any) -> bool:
    """Whether two convolutions are one stem, as :func:`sccg_export.qdq.stem` says it of an ONNX graph."""
    met: set[str] = set()
    seen: set[str] = set()
    waiting = [first]
    while waiting:
        for value in waiting.pop().output(0).get_target_inputs():
            node = value.get_node()
            name = str(node.get_friendly_name())
            if node.get_type_name() in CONVOLUTIONS:
                met.add(name)
            elif name not in seen and node.get_output_size():
                seen.add(name)
                waiting.append(node)
    return met == {str(second.get_friendly_name())} and all(max(node.get_strides()) > 1 for node in (first, second))


def _graph_name(node: Any) -> str:
    """The ONNX node's name; of a convolution with bias, OpenVINO makes ``NAME/WithoutBiases`` and the sum ``NAME``.

    A transposed one it calls by a number that is another each time; the sum behind it has the name.
    """
    name = str(node.get_friendly_name())
    if re.fullmatch(r"ConvolutionBackpropData_[0-9]+", name):
        after = (value.get_node() for value in node.output(0).get_target_inputs())
        return next((str(one.get_friendly_name()) for one in after if one.get_type_name() == "Add"), name)
    return name.removesuffix("/WithoutBiases")


def _touches_vector(node: Any) -> bool:
    """Whether a computed input or the output is a map of one pixel."""
    values = [value for value in node.input_values() if value.get_node().get_type_name() != "Constant"]
    shapes = [value.get_partial_shape() for value in (*values, node.output(0))]
    return any(shape.rank.get_length() == 4 and list(shape.to_shape())[2:] == [1, 1] for shape in shapes)


def _convolutions(model: Any, *, quantised: bool) -> tuple[str, ...]:
    """Convolutions whose data input is (not) quantised."""
    return tuple(
        _graph_name(node)
        for node in model.get_ordered_ops()
        if node.get_type_name() in CONVOLUTIONS and _reads_int8(node.input_value(0)) == quantised
    )


def _quantised_sums(model: Any) -> tuple[str, ...]:
    """Sums of two maps of which one at least is quantised."""
    return tuple(
        _graph_name(node)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Add" and any(_reads_int8(value) for value in node.input_values())
    )


def _reads_int8(value: Any) -> bool:
    """Whether a value was quantised; what only moves pixels may lie in between."""
    before = value.get_node()
    while before.get_type_name() in _MOVING:
        before = before.input_value(0).get_node()
    return bool(before.get_type_name() == "FakeQuantize")
