"""From a trained PyTorch network to the one ONNX graph that every target starts from."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from sccg_export.centre import centre
from sccg_export.equalise import equalise
from sccg_runtime.errors import RefusedError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.build import fold_for_export

OPSET = 20
INPUT, OUTPUT = "input", "output"
GRAPH_TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True)
class Graph:
    """A float32 ONNX graph: ``input`` (1, 1, H, W) -> ``output`` (1, 1, H, W), both in [-1, 1].

    Attributes
    ----------
    model
        The graph, checked; height and width are free, weights are inside.
    size
        (rows, columns) that it was traced at.
    network
        What was traced: the folded network in PyTorch, in evaluation mode.
    equalised
        Whether channels were scaled to make eight bits go further.
    """

    model: onnx.ModelProto
    size: tuple[int, int]
    network: nn.Module
    equalised: bool = False

    def to_bytes(self) -> bytes:
        """The ONNX file."""
        return bytes(self.model.SerializeToString())

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))


def export_graph(generator: nn.Module, size: tuple[int, int], images: Sequence[FloatArray] = ()) -> Graph:
    """Fold a generator and export it.

    Parameters
    ----------
    generator
        (N, 1, H, W) -> (N, 1, H, W) in [-1, 1]; it is copied, not changed.
    size
        (rows, columns), multiples of the generator's stride.
    images
        (1, H, W) in [-1, 1] each, for a graph that is to be quantised: :func:`~sccg_export.equalise.equalise` and
        :func:`~sccg_export.centre.centre`.

    Raises
    ------
    RefusedError
        ONNX Runtime gives another output than PyTorch (more than 2e-3 on [-1, 1] anywhere).
    """
    folded = fold_for_export(generator)
    example = torch.linspace(-1, 1, size[0] * size[1]).reshape(1, 1, *size)
    with torch.inference_mode():
        expected = folded(example).numpy()
    equalised = bool(images) and equalise(folded, images)
    if images:
        centre(folded, images)
    graph = Graph(to_onnx(folded, example), size, folded, equalised)
    _compare(graph, example.numpy(), expected)
    return graph


def to_onnx(network: nn.Module | ExportedProgram, example: torch.Tensor) -> onnx.ModelProto:
    """The ONNX graph of a network or exported program (N, 1, H, W) -> (N, 1, H, W), checked; height and width are free.

    Raises
    ------
    RefusedError
        PyTorch's exporter gives no graph.
    """
    with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            optimize=True,
            verbose=False,
        )
        if program is None:
            raise RefusedError("PyTorch's ONNX exporter gave no graph")
    model = onnx.load_from_string(program.model_proto.SerializeToString())
    free_sides(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def free_sides(model: onnx.ModelProto) -> None:
    """Make height and width of input and output free, and drop the shapes in between."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in ((2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]


def _compare(graph: Graph, example: FloatArray, expected: FloatArray) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run([OUTPUT], {INPUT: example})
    worst = float(np.abs(output - expected).max())
    if not worst <= GRAPH_TOLERANCE:
        raise RefusedError(f"the exported graph differs from PyTorch by up to {worst:.2g} on [-1, 1]")


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Hold some loggers at ERROR for a while."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
