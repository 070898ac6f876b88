"""An ONNX graph in FP16, but for what half precision would ruin; inputs and outputs stay float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sccg_runtime.errors import RefusedError

# Sums over a whole map: their squares leave the range of FP16 (65504), their small parts vanish in it.
FLOAT_OPS = frozenset({"InstanceNormalization", "ReduceMean"})
_SIZES: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that computes in FP16; casts are written out, so a strongly typed engine does the same.

    Instance norm, means over maps, and all that lies before the first convolution (the standardisation of the slice)
    stay in float32.

    Raises
    ------
    RefusedError
        A weight does not fit into FP16.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    kept = before_first_convolution(model)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    types = _float_values(model)
    known: dict[tuple[str, int], str] = {}  # (value, type) -> its name in that type
    nodes: list[onnx.NodeProto] = []

    def in_type(name: str, wanted: int) -> str:
        if types[name] == wanted:
            return name
        if (name, wanted) not in known:
            known[name, wanted] = converted = f"{name}_{_SIZES[wanted]}"
            if name in weights:
                graph.initializer.append(_half_weight(weights[name], converted))
            else:
                nodes.append(helper.make_node("Cast", [name], [converted], f"cast_{converted}", to=wanted))
        return known[name, wanted]

    for node in list(graph.node):
        wanted = TensorProto.FLOAT if node.op_type in FLOAT_OPS or node.name in kept else TensorProto.FLOAT16
        node.input[:] = [in_type(name, wanted) if name in types else name for name in node.input]
        types.update({name: wanted for name in node.output if name in types})
        nodes.append(node)
    for value in graph.output:
        if types[value.name] != TensorProto.FLOAT:
            inner = f"{value.name}_fp16"
            for node in nodes:
                node.input[:] = [inner if name == value.name else name for name in node.input]
                node.output[:] = [inner if name == value.name else name for name in node.output]
            nodes.append(helper.make_node("Cast", [inner], [value.name], f"cast_{value.name}", to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    del graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def before_first_convolution(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that the first convolution's input is computed by."""
    producer = {name: node for node in model.graph.node for name in node.output}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    found: set[str] = set()
    waiting = [first.input[0]]
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return frozenset(found)


def _float_values(model: onnx.ModelProto) -> dict[str, int]:
    """Every float32 value of the graph -> FLOAT."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [(one.name, one.type.tensor_type.elem_type) for one in (*graph.input, *graph.value_info, *graph.output)]
    values += [(tensor.name, tensor.data_type) for tensor in graph.initializer]
    return {name: kind for name, kind in values if kind == TensorProto.FLOAT}


def _half_weight(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise RefusedError(f"weight {tensor.name} is too large for fp16: ask for --fp32")
    return numpy_helper.from_array(values.astype(np.float16), name)
