"""Runnables made of NumPy, well behaved and badly behaved, and slices with a head in them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sccg_bench.latency import LatencyPlan
from sccg_bench.measuring import BenchOptions
from sccg_bench.protocols import Call, Pair
from sccg_runtime.errors import InputError, MissingDependencyError
from sccg_runtime.intensity import FloatArray


@dataclass(frozen=True)
class Fake:
    """Adds ``shift`` (in [-1, 1] units) to its input; ``gain`` scales it first."""

    name: str
    shift: float = 0.0
    gain: float = 1.0
    engine: str = "torch"
    precision: str = "fp32"
    device: str = "cpu"

    def open(self, size: tuple[int, int], threads: int) -> Call:
        def call(image: FloatArray) -> FloatArray:
            return np.clip(image * np.float32(self.gain) + np.float32(self.shift), -1, 1)

        return call

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "engine_version": "1.0",
            "device": self.device,
            "precision": self.precision,
            "precision_ran": {self.precision: 1},
            "size_mib": 1.5,
        }


@dataclass(frozen=True)
class Exported(Fake):
    """Brings the drift of its export along."""

    def describe(self) -> dict[str, Any]:
        return (
            super().describe()
            | {"engine_drift": {"engine_to_fp32_psnr_db": 47.5, "worst": "case1/001"}}
            | {"float_layers": ["stem"], "quantizer": "nncf 3.4.0"}
        )


@dataclass(frozen=True)
class Forged(Fake):
    """Describes itself by values of the wrong type, as a bundle of somebody else's making may."""

    key: str = ""
    value: object = None

    def describe(self) -> dict[str, Any]:
        return super().describe() | {self.key: self.value}


@dataclass(frozen=True)
class Bundle(Fake):
    """Converts a series by copying its files; ``fault`` is what it says instead."""

    fault: str = ""

    def convert(self, series: Path, out: Path, threads: int) -> int:
        if self.fault:
            raise InputError(self.fault)
        if series.is_file() and series.suffix != ".dcm":
            raise InputError(f"{series.name} is no DICOM file")
        files = sorted(series.glob("*.dcm")) if series.is_dir() else [series]
        out.mkdir()
        for file in files:
            (out / file.name).write_bytes(file.read_bytes())
        return len(files)


@dataclass(frozen=True)
class OnGpu(Fake):
    """Says how long a GPU took, as a runnable on a GPU does."""

    device: str = "cuda"
    device_times_ms: tuple[float, ...] = (1.0, 2.5, 9.0)


@dataclass(frozen=True)
class Cores(Fake):
    """Says which processors its process may run on, and writes them down where it runs."""

    folder: str = ""

    def open(self, size: tuple[int, int], threads: int) -> Call:
        cores = "-".join(map(str, sorted(os.sched_getaffinity(0))))
        Path(self.folder, f"{os.getpid()} {threads} {cores}").touch()
        return super().open(size, threads)


@dataclass(frozen=True)
class Broken(Fake):
    """Fails in the way that ``how`` says; ``after`` calls work first."""

    how: str = "raises"
    after: int = 0

    def open(self, size: tuple[int, int], threads: int) -> Call:
        if self.how == "missing":
            raise MissingDependencyError("no NVIDIA driver on this machine: install one")
        if self.how == "refuses 48" and size == (48, 48):
            raise InputError("48x48 is not a multiple of the stride 32")
        seen = 0

        def call(image: FloatArray) -> FloatArray:
            nonlocal seen
            seen += 1
            if seen <= self.after or self.how == "refuses 48":
                return image.copy()
            return _failures()[self.how](image)

        return call


def _failures() -> dict[str, Callable[[FloatArray], FloatArray]]:
    def raises(image: FloatArray) -> FloatArray:
        raise ValueError("out of\nluck")

    def dies(image: FloatArray) -> FloatArray:
        print("printed by an engine")  # noqa: T201
        print("segmentation of a fault", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        os._exit(7)

    def killed(image: FloatArray) -> FloatArray:
        os.kill(os.getpid(), 9)
        return image

    def hangs(image: FloatArray) -> FloatArray:
        time.sleep(600)
        return image

    def nan(image: FloatArray) -> FloatArray:
        return np.full_like(image, np.nan)

    def nan_in_one(image: FloatArray) -> FloatArray:
        return np.full_like(image, np.nan) if image.max() < 0.95 else image.copy()

    def wrong_shape(image: FloatArray) -> FloatArray:
        return image[:, :-1].copy()

    return {
        each.__name__.replace("_", " "): each for each in (raises, dies, killed, hangs, nan, nan_in_one, wrong_shape)
    }


@dataclass(frozen=True)
class Environment(Fake):
    """Answers with what its process sees: threads asked, OMP_NUM_THREADS, whether unwanted packages were imported."""

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "precision_ran": {
                "omp": os.environ["OMP_NUM_THREADS"],
                "imported": [name for name in ("scipy", "skimage", "matplotlib", "pytest") if name in sys.modules],
            }
        }


def head(size: int = 64, seed: int = 0, contrast: float = 1.0) -> FloatArray:
    """A slice (1, size, size) in [-1, 1]: air, a bright ring of bone, textured soft tissue; seed moves the texture."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    radius = np.hypot(rows, columns * 1.1)
    rng = np.random.default_rng(seed)
    image = np.full((size, size), -1.0)
    image[radius < 0.7] = -0.1 + 0.1 * contrast * rng.standard_normal(int((radius < 0.7).sum())).clip(-2, 2)
    image[(radius >= 0.7) & (radius < 0.8)] = 0.98
    return image[None].astype(np.float32)


def pairs(cases: int = 2, slices: int = 3, size: int = 64) -> list[Pair]:
    """Pairs whose MR equals the CT, so that the identity is a perfect model."""
    return [
        Pair(f"case{case}", f"{index:03d}", image, image)
        for case in range(cases)
        for index in range(slices)
        for image in [head(size, seed=case * 100 + index)]
    ]


FAST = LatencyPlan(
    queries=4,
    seconds=0,
    warmup_queries=2,
    warmup_seconds=0,
    block_seconds=0.01,
    throughput_seconds=0.01,
    series_repeats=2,
)


def options(**given: object) -> BenchOptions:
    """Of a run of bench that takes seconds, changed by what is given."""
    values = {"direction": "mr2ct", "size": (64, 64), "profile": FAST, "timeout_s": 60.0}
    return BenchOptions(**(values | given))  # type: ignore[arg-type]
