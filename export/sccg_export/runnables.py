"""Engines, as bench wants them: opened in a child process from a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sccg_runtime.engine import EngineFiles, open_engine
from sccg_runtime.intensity import FloatArray

ENGINE_NAMES = {"openvino": "openvino", "ort": "onnxruntime", "tensorrt-rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}


@dataclass(slots=True)
class BundleRunnable:
    """A ``.sccg`` file: on the CPU through the very session that clinics run, or TensorRT's engine on the GPU.

    ``device_times_ms`` holds the GPU's own time of every call since :meth:`open`; it stays empty on a CPU.
    """

    name: str
    bundle: Path
    device_times_ms: list[float] = field(default_factory=list, repr=False)
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Callable[[FloatArray], FloatArray]:
        """Read the bundle and compile it for ``size``."""
        from sccg_runtime.bundle import read_bundle
        from sccg_runtime.engine import open_session

        bundle = read_bundle(self.bundle)
        if not bundle.contract.runs_on_cpu:
            from sccg_export.trt_session import open_engine

            self.device_times_ms = []
            session = open_engine(bundle, size, self.device_times_ms)
        else:
            session = open_session(bundle, size=size, threads=threads)
        told = session.describe()
        self._facts = {
            "engine": ENGINE_NAMES[bundle.contract.target],
            "engine_version": told.engine_version,
            "device": "cuda" if told.device.startswith("CUDA") else "cpu",
            "precision": bundle.contract.precision_asked,
            "precision_ran": dict(told.precision_ran),
            "size_mib": self.bundle.stat().st_size / 2**20,
            "engine_drift": bundle.contract.drift.get("engine_drift"),
            "float_layers": bundle.contract.drift.get("float_layers"),
            "quantizer": bundle.contract.drift.get("quantizer"),
        }
        return session

    def convert(self, series: Path, out: Path, threads: int) -> int:
        """A DICOM series through the bundle, as ``sccg-runtime convert`` does it; how many slices it has."""
        from sccg_runtime import convert_series, load

        return convert_series(series, out, load(self.bundle), threads=threads).slices

    def synchronize(self) -> None:
        """Nothing to wait for: on a GPU, too, a call ends when its output is here."""

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after :meth:`open`."""
        return dict(self._facts)


@dataclass(slots=True)
class OpenVinoRunnable:
    """A checkpoint in OpenVINO, computed in float32: what conversion alone gains, without compression."""

    name: str
    checkpoint: Path
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Callable[[FloatArray], FloatArray]:
        """Export the network and compile it for ``size``."""
        from sccg_export.graph import export_graph
        from sccg_export.openvino_target import compile_float32
        from sccg_teacher_student.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(self.checkpoint)
        small = 8 * checkpoint.spec.stride
        request, version, ran = compile_float32(export_graph(checkpoint.generator, (small, small)), size, threads)
        self._facts = {
            "engine": "openvino",
            "engine_version": version,
            "device": "cpu",
            "precision": "fp32",
            "precision_ran": ran,
            "size_mib": self.checkpoint.stat().st_size / 2**20,
        }

        def call(image: FloatArray) -> FloatArray:
            return np.array(request.infer(np.ascontiguousarray(image)[None])[0][0], np.float32)

        return call

    def synchronize(self) -> None:
        """Nothing to wait for on a CPU."""

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after :meth:`open`."""
        return dict(self._facts)


@dataclass(slots=True)
class EngineRunnable:
    """An engine that stands in no bundle, such as that of a network which never learned."""

    name: str
    files: EngineFiles
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Callable[[FloatArray], FloatArray]:
        """Compile it for ``size``."""
        session = open_engine(self.files, size, threads)
        told = session.describe()
        self._facts = {
            "engine": ENGINE_NAMES[self.files.target],
            "engine_version": told.engine_version,
            "device": told.device.lower(),
            "precision": self.files.precision,
            "precision_ran": dict(told.precision_ran),
            "size_mib": sum(map(len, self.files.members.values())) / 2**20,
        }
        return session

    def synchronize(self) -> None:
        """Nothing to wait for on a CPU."""

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after :meth:`open`."""
        return dict(self._facts)
