"""A network as an exported PyTorch program that says the type of every operation, as strongly typed engines take it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map

from sccg_export.layer_types import PRECISIONS
from sccg_runtime.contract import Precision
from sccg_runtime.errors import RefusedError

_ATEN: Any = torch.ops.aten
# ATen operation -> TensorRT's layer. Sums over a whole map leave the range of FP16, so these stay in float32.
FLOAT_OPS: Mapping[Any, str] = MappingProxyType(
    {_ATEN.instance_norm.default: "NORMALIZATION", _ATEN.mean.dim: "REDUCE"}
)
CONVOLUTIONS: Mapping[Any, str] = MappingProxyType(
    {_ATEN.conv2d.default: "CONVOLUTION", _ATEN.conv_transpose2d.input: "DECONVOLUTION"}
)
_NAMES = {torch.float32: "FLOAT", torch.float16: "HALF"}


def typed_program(network: nn.Module, precision: Precision, example: Tensor) -> ExportedProgram:
    """Export a network; for ``fp16`` with casts written out.

    Instance norm, means over maps, and all that lies before the first convolution (the standardisation of the slice)
    stay in float32.

    Parameters
    ----------
    network
        Folded, (1, 1, H, W) -> (1, 1, H, W); it is copied, not changed.
    precision
        ``"fp32"`` or ``"fp16"``; input and output stay float32 in both.
    example
        (1, 1, H, W) float32; the program takes this size, and lives on its device.

    Raises
    ------
    RefusedError
        A weight does not fit into FP16.
    """
    program = torch.export.export(copy.deepcopy(network).to(example.device), (example,), strict=False)
    if precision == "fp32":
        return program
    module: Any = program.module(check_guards=False)
    kept = _before_first_convolution(module.graph)
    for node in module.graph.nodes:
        if node.op == "get_attr" and not any(user in kept or user.target in FLOAT_OPS for user in node.users):
            _halve(module, node.target)
    return torch.export.export(_Typed(module, frozenset(node.name for node in kept)), (example,), strict=False)


class Rounded(torch.fx.Interpreter):
    """Runs an exported program on any device, every value rounded as it is typed.

    Each operation computes in float32, and its output goes over into its own type: what a card does that adds up in
    float32, and no CPU without FP16 arithmetic does. What is beyond FP16 becomes infinite here, too.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.module(check_guards=False))

    def run_node(self, n: torch.fx.Node) -> Any:
        """One node; asserts, which give nothing, as they are."""
        typed = n.meta.get("val")
        if n.op != "call_function" or not isinstance(typed, Tensor):
            return super().run_node(n)
        args, kwargs = tree_map(_wide, self.fetch_args_kwargs_from_env(n))
        return super().call_function(n.target, args, kwargs).to(typed.dtype)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def program_types(program: ExportedProgram) -> tuple[dict[str, int], dict[str, int]]:
    """(convolutions by precision, layers by ``TYPE dtype``, named as TensorRT does) of an exported program.

    A strongly typed engine computes each in the type of its input.
    """
    ran: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.target not in CONVOLUTIONS and node.target not in FLOAT_OPS:
            continue
        kind = _NAMES[node.args[0].meta["val"].dtype]
        if node.target in CONVOLUTIONS:
            ran[PRECISIONS[kind]] += 1
        layers[f"{CONVOLUTIONS.get(node.target) or FLOAT_OPS[node.target]} {kind}"] += 1
    return dict(sorted(ran.items())), dict(sorted(layers.items()))


class _Typed(nn.Module):
    """Runs a graph of ATen operations node by node, each in the type that it is to have."""

    def __init__(self, module: Any, kept: frozenset[str]) -> None:
        super().__init__()
        self.module, self.kept = module, kept

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = _Casting(self.module, self.kept).run(image)
        return output.float()


class _Casting(torch.fx.Interpreter):
    def __init__(self, module: Any, kept: frozenset[str]) -> None:
        super().__init__(module)
        self.kept = kept
        self.wanted = torch.float32

    def run_node(self, n: torch.fx.Node) -> Any:
        self.wanted = torch.float32 if n.name in self.kept or n.target in FLOAT_OPS else torch.float16
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().call_function(target, tree_map(self._cast, args), tree_map(self._cast, kwargs))

    def _cast(self, value: Any) -> Any:
        return value.to(self.wanted) if isinstance(value, Tensor) and value.is_floating_point() else value


def _before_first_convolution(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Nodes that the first convolution's input is computed by: the standardisation of the slice."""
    first = next(node for node in graph.nodes if node.target in CONVOLUTIONS)
    image: Any = first.args[0]
    found: set[torch.fx.Node] = set()
    waiting = [image]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _halve(module: Any, name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    weight = getattr(module.get_submodule(owner), attribute)
    if weight.abs().max() > torch.finfo(torch.float16).max:
        raise RefusedError(f"weight {name} is too large for fp16: ask for --fp32")
    setattr(module.get_submodule(owner), attribute, nn.Parameter(weight.detach().half(), requires_grad=False))
