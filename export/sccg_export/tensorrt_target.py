"""Target ``tensorrt``: torch-tensorrt's dynamo front end, FP32 and FP16, built on the NVIDIA GPU that will run it.

TensorRT 11 is strongly typed: a layer computes in the type that the program gives it, and precision keywords of older
releases are gone, or accepted and ignored. So the program is typed first, and what was built is inspected.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sccg_export.built import Built
from sccg_export.calibration import Calibration
from sccg_export.graph import Graph, quiet
from sccg_export.layer_types import check_types
from sccg_export.requirements import installed
from sccg_export.trt_session import engine_layers, gpu_arch, import_tensorrt, open_engine, tensor_names, trt_logger
from sccg_export.typed_program import program_types, typed_program
from sccg_runtime.contract import Precision
from sccg_runtime.errors import MissingDependencyError, RefusedError
from sccg_runtime.files import sha256

DEVICE = "cuda"
PROGRAM_SUFFIX = ".pt2"
PROGRAM_TOLERANCE = 1e-3


def build(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    calibration: Calibration | None,
    *,
    keep_float: tuple[str, ...] = (),
) -> Built:
    """Make ``model.engine`` for ``size`` (rows, columns) alone, and the same engine as an exported program beside it.

    ``calibration`` and ``keep_float`` are for ``int8``, which this target does not have.

    Raises
    ------
    MissingDependencyError
        torch-tensorrt does not load.
    RefusedError
        The program's or the engine's types are not those that were asked for, TensorRT cannot build it, or the
        exported program does not give what the engine gives.
    """
    torch_tensorrt = _import_torch_tensorrt()
    trt = import_tensorrt("tensorrt")
    example = torch.linspace(-1, 1, size[0] * size[1], device=DEVICE).reshape(1, 1, *size)
    program = typed_program(graph.network, precision, example)
    check_types(precision, *program_types(program))
    started = time.perf_counter()
    engine = _serialise(torch_tensorrt, program, example)
    seconds = time.perf_counter() - started
    loaded = trt.Runtime(trt_logger("tensorrt")).deserialize_cuda_engine(engine)
    ran, layers = engine_layers(trt, loaded)
    check_types(precision, ran, layers)
    packed = _exported_program(torch_tensorrt, engine, tensor_names(trt, loaded), example)
    return Built(
        members={"model.engine": engine},
        engine="TensorRT",
        engine_version=str(trt.__version__),
        precision_ran=ran,
        float_layers=(),
        open=open_engine,
        beside={PROGRAM_SUFFIX: packed},
        details={
            "gpu_arch": gpu_arch(),
            "gpu": torch.cuda.get_device_name(),
            "torch_tensorrt": installed("torch-tensorrt"),
            "engine_mib": len(engine) / 2**20,
            "build_seconds": seconds,
            "layers": layers,
            "exported_program_sha256": sha256(packed),
        },
        note=f"engine for this GPU ({torch.cuda.get_device_name()}, SM {gpu_arch()}) and slices of {size[0]}x{size[1]}",
    )


def _import_torch_tensorrt() -> Any:
    try:
        import torch_tensorrt
    except Exception as error:  # it raises a bare Exception where TensorRT's libraries do not load
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MissingDependencyError(f"torch_tensorrt does not load ({reason[:200]}): pip install '.[gpu]'") from None
    return torch_tensorrt


def _serialise(torch_tensorrt: Any, program: torch.export.ExportedProgram, example: torch.Tensor) -> bytes:
    """TensorRT's engine of a typed program, built so that the inspector tells its types."""
    dynamo = torch_tensorrt.dynamo
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(quiet("torch_tensorrt"))
        stack.enter_context(_root_logger_kept())
        # detailed profiling verbosity is the debugger's to ask for; it keeps its log in that folder
        stack.enter_context(dynamo.Debugger(log_level="error", engine_builder_monitor=False, logging_dir=folder))
        try:
            engine = dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=(example,),
                disable_tf32=True,  # else FP32 convolutions round to 10 bits of mantissa
                timing_cache_path=str(Path(folder) / "timing.cache"),
            )
        except (RuntimeError, AssertionError) as error:  # an operator without a converter is a RuntimeError, too
            reason = " ".join(str(error).split())[:200] or "no reason given"
            raise RefusedError(f"TensorRT cannot build the engine: {reason}") from None
    return bytes(engine)


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Bring back the root logger's handlers and level, which torch-tensorrt's debugger replaces."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _exported_program(torch_tensorrt: Any, engine: bytes, names: tuple[str, str], example: torch.Tensor) -> bytes:
    """The engine as a program that ``torch_tensorrt.load`` gives back to PyTorch, saved, reloaded and run."""
    module = torch_tensorrt.runtime.TorchTensorRTModule(
        serialized_engine=engine, input_binding_names=[names[0]], output_binding_names=[names[1]], name="generator"
    )
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), quiet("torch_tensorrt"):
        path = Path(folder) / f"program{PROGRAM_SUFFIX}"
        torch_tensorrt.save(torch.export.export(module, (example,), strict=False), str(path))
        again = torch_tensorrt.load(str(path)).module()(example)
        expected = module(example)
        packed = path.read_bytes()
    worst = float(np.abs((again - expected).float().cpu().numpy()).max())
    if not worst <= PROGRAM_TOLERANCE:
        raise RefusedError(f"the exported program differs from its engine by up to {worst:.2g} on [-1, 1]")
    return packed
