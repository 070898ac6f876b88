"""Engines, as bench wants them: opened in a child process from a path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sccg_runtime.contract import Precision, Target
from sccg_runtime.engine import EngineFiles, Session, open_engine

ENGINE_NAMES = {"openvino": "openvino", "ort": "onnxruntime", "tensorrt-rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}


@dataclass(slots=True)
class _Opened:
    name: str
    _facts: dict[str, Any] = field(init=False, default_factory=dict, repr=False)

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after ``open``."""
        return dict(self._facts)

    def _opened(self, session: Session, target: Target, precision: Precision, size_bytes: int) -> Session:
        told = session.description
        self._facts = {
            "engine": ENGINE_NAMES[target],
            "engine_version": told.engine_version,
            "device": "cuda" if told.device.startswith("CUDA") else "cpu",
            "precision": precision,
            "precision_ran": dict(told.precision_ran),
            "size_mib": size_bytes / 2**20,
        }
        return session


@dataclass(slots=True)
class BundleRunnable(_Opened):
    """A ``.sccg`` file: on the CPU through the very session that clinics run, or TensorRT's engine on the GPU.

    ``device_times_ms`` holds the GPU's own time of every call since :meth:`open`; it stays empty on a CPU.
    """

    bundle: Path
    device_times_ms: list[float] = field(default_factory=list, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Session:
        """Read the bundle and compile it for ``size``."""
        from sccg_runtime.bundle import read_bundle
        from sccg_runtime.engine import open_session

        bundle = read_bundle(self.bundle)
        contract = bundle.contract
        if not contract.runs_on_cpu:
            from sccg_export.trt_session import open_engine

            self.device_times_ms = []
            session = open_engine(bundle, size, self.device_times_ms)
        else:
            session = open_session(bundle, size=size, threads=threads)
        self._opened(session, contract.target, contract.precision_asked, self.bundle.stat().st_size)
        self._facts |= {name: contract.drift.get(name) for name in ("engine_drift", "float_layers", "quantizer")}
        return session

    def convert(self, series: Path, out: Path, threads: int) -> int:
        """A DICOM series through the bundle, as ``sccg-runtime convert`` does it; how many slices it has."""
        from sccg_runtime import convert_series, load

        return convert_series(series, out, load(self.bundle), threads=threads).slices


@dataclass(slots=True)
class OpenVinoRunnable(_Opened):
    """A checkpoint in OpenVINO, computed in float32: what conversion alone gains, without compression."""

    checkpoint: Path

    def open(self, size: tuple[int, int], threads: int) -> Session:
        """Export the network and compile it for ``size``."""
        from sccg_export.graph import export_graph
        from sccg_export.openvino_target import float32_files
        from sccg_teacher_student.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(self.checkpoint)
        small = 8 * checkpoint.spec.stride
        files = float32_files(export_graph(checkpoint.generator, (small, small)), size, self.name)
        return self._opened(
            open_engine(files, size, threads), files.target, files.precision, self.checkpoint.stat().st_size
        )


@dataclass(slots=True)
class EngineRunnable(_Opened):
    """An engine that stands in no bundle, such as that of a network which never learned."""

    files: EngineFiles

    def open(self, size: tuple[int, int], threads: int) -> Session:
        """Compile it for ``size``."""
        files = self.files
        size_bytes = sum(map(len, files.members.values()))
        return self._opened(open_engine(files, size, threads), files.target, files.precision, size_bytes)
