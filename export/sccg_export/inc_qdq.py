"""Static quantisation by Intel Neural Compressor (PT2E), as an ONNX graph whose weights are int8 initialisers."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxscript.optimizer import fold_constants

from sccg_export.calibration import Calibration, Slices
from sccg_export.graph import INPUT, Graph, to_onnx

_ANY_SIZE = 2**40


def quantise_inc(
    graph: Graph, calibration: Calibration, keep_float: Collection[str], *, seven_bits: bool
) -> onnx.ModelProto:
    """Q/DQ around convolutions and sums of two maps, by the compressor's static recipe.

    Its recipe for x86 leaves the output of a convolution that is added to another map in float, since PyTorch fuses
    the two; ONNX Runtime has an integer convolution only where the output is quantised, too. So sums are marked here,
    and the compressor sets their ranges like the others.

    Parameters
    ----------
    graph, calibration
        What to quantise, and the slices that set its ranges: moving averages, as :mod:`sccg_export.qdq` takes them.
    keep_float
        ONNX names of nodes that stay in float.
    seven_bits
        Weights in -64..63, for CPUs whose INT8 kernels saturate.
    """
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        from neural_compressor.torch.export import export
        from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

        example = torch.from_numpy(np.array(calibration.images[0]))[None]
        config = StaticQuantConfig()
        program = export(graph.network, (example,))
        names = {node.output[0]: node.name for node in graph.model.graph.node}
        _mark(program, config, {value for value, name in names.items() if name in keep_float})
        prepared = prepare(program, config)
        slices = Slices(calibration)
        with torch.no_grad():
            while (given := slices.get_next()) is not None:
                prepared(torch.from_numpy(np.array(given[INPUT])))
        model = fold_weights(to_onnx(convert(prepared), example))
    for node in model.graph.node:  # the exporter numbers some nodes, in this larger graph otherwise
        node.name = names.get(node.output[0], node.name)
    return halve_weights(model) if seven_bits else model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hold back all records below ERROR: the compressor sets its logger's level whenever it is imported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _mark(program: Any, config: Any, keep_float: Collection[str]) -> None:
    """Leave the compressor its recipe for convolutions; of all else, only sums of two maps are quantised.

    ``keep_float`` has names of values, which program and ONNX graph share.
    """
    from neural_compressor.torch.algorithms.pt2e_quant.utility import create_quant_spec_from_config
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    aten: Any = torch.ops.aten
    spec = create_quant_spec_from_config(config.act_dtype, config.act_sym, config.act_granularity, config.act_algo)
    for node in list(program.graph.nodes):
        if node.op != "call_function":
            continue
        kept = node.name in keep_float
        inputs: tuple[Any, ...] = ()
        if node.target == aten.add.Tensor:
            numbers = [one for one in node.args if not isinstance(one, torch.fx.Node)]
            with program.graph.inserting_before(node):  # the recipe fails on a convolution plus a number
                made = {one: program.graph.call_function(aten.scalar_tensor.default, (one,)) for one in numbers}
            node.args = tuple(made.get(one, one) for one in node.args)
            inputs = () if kept or numbers else node.args
        elif node.target == aten.conv2d.default and not kept:
            continue
        node.meta["quantization_annotation"] = QuantizationAnnotation(
            input_qspec_map=dict.fromkeys(inputs, spec), output_qspec=spec if inputs else None, _annotated=True
        )
    program.recompile()


def fold_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what depends on constants alone is an initialiser, but for DequantizeLinear.

    A weight that goes through QuantizeLinear is then stored as int8: engines take it for an integer kernel, and the
    file is a quarter as large.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    fold_constants(
        folded,
        input_size_limit=_ANY_SIZE,
        output_size_limit=_ANY_SIZE,
        should_fold=lambda node: node.op_type != "DequantizeLinear",
    )
    onnx.checker.check_model(folded, full_check=True)
    return folded


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose int8 weights use seven bits: half the numbers, twice the scales."""
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changed: dict[str, Any] = {}
    for node in model.graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.dtype == np.int8:
            changed[node.input[0]] = np.clip(np.rint(weight / 2), -64, 63).astype(np.int8)
            changed[node.input[1]] = constants[node.input[1]] * np.float32(2)
    for tensor in halved.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return halved
