"""What is measured of models in their processes: latency in turns, outputs, throughput, whole series."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sccg_bench.aggregate import Figures
from sccg_bench.latency import Latency, LatencyPlan, Profile, plan_of, take_turns
from sccg_bench.machine import LoadWatch, core_shares
from sccg_bench.on_disk import on_disk
from sccg_bench.protocols import Converter, Runnable
from sccg_bench.results import Role, Row, Status
from sccg_bench.worker import TIMEOUT_S, Worker, WorkerError
from sccg_runtime.direction import Direction
from sccg_runtime.errors import SccgError
from sccg_runtime.intensity import FloatArray, Intensity

Size = tuple[int, int]
_TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure, beside the models and the slices.

    Attributes
    ----------
    direction
        Says which of MR and CT is input and which is reference.
    teacher_name
        The runnable that drift and ``speedup_vs_teacher`` refer to; None: no drift.
    fp32_of
        Name of an exported engine -> name of the runnable that is its FP32 network.
    ct
        Intensity of the CT slices; HU figures come only with kind ``hu``.
    size
        (rows, columns) of the latency that is compared with the paper's.
    profile
        ``quick``, ``full``, or a plan of one's own.
    threads
        CPU threads of every engine; and streams of the throughput, of one thread each.
    series
        DICOM series (a folder of its files) that bundles convert from end to end; None: not measured.
    control
        Add the blurred teachers, the controls that must fail.
    timeout_s
        Longest time for one request to a model.
    """

    direction: Direction
    teacher_name: str | None = None
    fp32_of: Mapping[str, str] = field(default_factory=dict)
    ct: Intensity | None = None
    size: Size = (512, 512)
    profile: Profile | LatencyPlan = "quick"
    threads: int = 1
    series: Path | None = None
    control: bool = True
    timeout_s: float = TIMEOUT_S


class Measuring:
    """Workers and rows of a run; a model that fails loses its worker and keeps its row."""

    def __init__(self, options: BenchOptions, progress: Callable[[str], None]) -> None:
        self._options, self._progress = options, progress
        self._plan = plan_of(options.profile)
        self._told = time.monotonic()
        self.workers: dict[str, Worker] = {}
        self.rows: dict[str, Row] = {}
        self.warnings: list[str] = []
        self._runnables: dict[str, Runnable] = {}

    def start(self, stack: contextlib.ExitStack, runnable: Runnable) -> None:
        name = runnable.name
        self._runnables[name] = runnable
        teacher, fp32 = self._options.teacher_name, self._options.fp32_of.get(name)
        role: Role = "model"
        if teacher is not None and teacher in (name, fp32):
            role = "teacher" if name == teacher else "teacher engine"
        self.rows[name] = Row(name=name, role=role, threads=self._options.threads)
        self._progress(f"{name}: starting")
        try:
            worker = Worker(runnable, self._options.threads, self._options.timeout_s)
        except SccgError as error:
            self._drop(name, error)
        else:
            self.workers[name] = stack.enter_context(worker)

    def measure(self, size: Size, native: bool) -> None:
        """Open all models at ``size``, let them take turns, and fill in their latency (and memory, the first time)."""
        slow: dict[str, bool] = {}
        for name in list(self.workers):
            self._progress(f"{name}: loading for {size[0]}x{size[1]} and warming up")
            with self._guarded(name, size):
                told = self.workers[name].open(size)
                if not native:
                    self.rows[name] = replace(self.rows[name], size=size, **_described(name, told))
                slow[name] = self.workers[name].warm_up(self._plan)
        self._progress(f"latency at {size[0]}x{size[1]}: {len(slow)} models take turns")
        blocks = {name: self._block(name, size) for name in slow}
        with self._watched(f"latency at {size[0]}x{size[1]}"):
            found = take_turns(blocks, slow, self._plan)
        for name, latency in found.items():
            self._keep(name, latency, size, native)

    def outputs(self, images: Sequence[FloatArray]) -> dict[str, list[FloatArray]]:
        """Native latency, then the outputs of every model for all images; models that fail on one are left out.

        They lie on disk, see :func:`sccg_bench.on_disk.on_disk`.
        """
        if not images:
            return {}
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        counted = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
        native = max(counted, key=lambda size: counted[size])
        if len(counted) > 1:
            others = f"{len(sizes) - counted[native]} of {len(sizes)} slices are not {native[0]}x{native[1]}"
            self.warnings.append(f"{others}: quality is over slices of all sizes, native latency of this one")
        if native == self._options.size:
            for name, row in self.rows.items():
                self.rows[name] = replace(row, quality_size=native, latency_native_ms=row.latency_ms)
        else:
            self.measure(native, native=True)
        order = sorted(range(len(images)), key=lambda index: (sizes[index] != native, sizes[index]))
        found: dict[str, list[FloatArray]] = {}
        for name in list(self.workers):
            self._progress(f"{name}: {len(images)} slices")
            answers = on_disk(self._answers(name, [images[index] for index in order], native))
            if name in self.workers:
                found[name] = [answers[place] for place in np.argsort(order)]
        return found

    def _answers(self, name: str, images: Sequence[FloatArray], opened: Size) -> Iterator[FloatArray]:
        """Outputs of a model that is open at ``opened``; they end early where it fails."""
        for image in images:
            size = int(image.shape[1]), int(image.shape[2])
            with self._guarded(name, size):
                if size != opened:
                    self.workers[name].open(size)
                    opened = size
                yield self.workers[name].run(image)
            if name not in self.workers:
                return

    def throughput(self) -> None:
        """Slices per second of as many processes as there are threads, all busy at once, for one model after another.

        Each process has one thread, its own share of the cores and one slice at a time. The models' own processes
        are idle meanwhile.
        """
        streams = self._options.threads
        shares: Sequence[set[int] | None] = core_shares(streams) or [None] * streams
        plan = replace(self._plan, block_seconds=self._plan.throughput_seconds)
        for name in list(self.workers):
            self._progress(f"{name}: throughput of {streams} streams")
            with (
                self._watched(f"throughput of {name}"),
                self._told_apart(name, "throughput"),
                ThreadPoolExecutor(streams) as pool,
                contextlib.ExitStack() as stack,
            ):
                opened = [
                    stack.enter_context(Worker(self._runnables[name], 1, self._options.timeout_s, cores=share))
                    for share in shares
                ]
                list(pool.map(lambda worker: worker.open(self._options.size), opened))
                list(pool.map(lambda worker: worker.warm_up(plan), opened))
                times = list(pool.map(lambda worker: worker.block(plan), opened))
                rate = sum(len(part) / sum(part) for part in times) * 1000
                figures: Figures = {"slices_per_s": rate, "streams": streams, "n": sum(map(len, times))}
                self.rows[name] = replace(self.rows[name], throughput=figures)

    def series(self) -> None:
        """A whole DICOM series through every model that converts one, each time in a fresh process.

        The first conversion of a process is of one file, from the start of the process to the slice on disk: the cold
        start. Then comes the series, reading, compiling and writing included.
        """
        source = self._options.series
        if source is None:
            return
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        first = files[len(files) // 2]  # no DICOMDIR or note, and no empty slice at an end
        for name in list(self.workers):
            runnable = self._runnables[name]
            if not isinstance(runnable, Converter):
                continue
            self._progress(f"{name}: DICOM to DICOM, {self._plan.series_repeats} times")
            cold, whole, slices = [], [], 0
            with self._watched(f"DICOM to DICOM by {name}"), self._told_apart(name, "DICOM to DICOM"):
                for _ in range(self._plan.series_repeats):
                    with tempfile.TemporaryDirectory() as folder:
                        began = time.monotonic()
                        with Worker(runnable, self._options.threads, self._options.timeout_s) as worker:
                            worker.convert(first, Path(folder, "first"))
                            started = time.monotonic()
                            slices = worker.convert(source, Path(folder, "whole"))
                            whole.append((time.monotonic() - started) * 1000 / slices)
                            cold.append((started - began) * 1000)
                figures = _repeated("end_to_end", whole) | _repeated("cold_start", cold)
                figures |= {"slices": slices, "repeats": self._plan.series_repeats}
                self.rows[name] = replace(self.rows[name], series=figures)

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        """A warning where others kept the machine busy meanwhile; measured apart, as quiet minutes would hide it."""
        watch = LoadWatch(lambda: [worker.pid for worker in self.workers.values()])
        yield
        if (disturbed := watch.warning()) is not None:
            self.warnings.append(f"{what}: {disturbed}")

    @contextlib.contextmanager
    def _told_apart(self, name: str, what: str) -> Iterator[None]:
        """A figure beside the main ones: where it cannot be measured, a warning says why and the row stays."""
        try:
            yield
        except SccgError as error:
            self.warnings.append(f"{name}: {what} was not measured: {error}")
            self._progress(self.warnings[-1])

    def _block(self, name: str, size: Size) -> Callable[[], Sequence[float] | None]:
        count = 0

        def block() -> Sequence[float] | None:
            nonlocal count
            times = None
            with self._guarded(name, size):
                times = self.workers[name].block(self._plan)
                count += len(times)
                if time.monotonic() - self._told >= _TELL_EVERY_S:
                    self._progress(f"{name}: {count} queries")
                    self._told = time.monotonic()
            return times

        return block

    def _keep(self, name: str, latency: Latency, size: Size, native: bool) -> None:
        if native:
            self.rows[name] = replace(self.rows[name], quality_size=size, latency_native_ms=latency)
            return
        with self._guarded(name, size):
            self.rows[name] = replace(self.rows[name], latency_ms=latency)
            worker = self.workers[name]
            memory, on_device = worker.peak_rss_mib(), worker.device_p50_ms()
            self.rows[name] = replace(self.rows[name], peak_rss_mib=memory, device_p50_ms=on_device)

    @contextlib.contextmanager
    def _guarded(self, name: str, size: Size) -> Iterator[None]:
        try:
            yield
        except SccgError as error:
            self._drop(name, error, f"at {size[0]}x{size[1]}: " if size != self._options.size else "")

    def _drop(self, name: str, error: SccgError, where: str = "") -> None:
        missing = isinstance(error, WorkerError) and error.not_here
        status: Status = "not measured" if missing else "failed"
        self.rows[name] = replace(self.rows[name], status=status, note=f"{where}{error}")
        self._progress(f"{name}: {status}: {error}")
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.close()


def _repeated(name: str, values_ms: Sequence[float]) -> Figures:
    """Median and extremes of a figure in ms."""
    low, high = min(values_ms), max(values_ms)
    return {f"{name}_ms": statistics.median(values_ms), f"{name}_ms_low": low, f"{name}_ms_high": high}


def _described(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a row out of a runnable's description; a bundle's ``engine_drift`` is marked as from its export.

    Raises
    ------
    InputError
        A value has the wrong type: a bundle says what it likes.
    """
    names = (
        "engine",
        "engine_version",
        "device",
        "precision",
        "precision_ran",
        "quantizer",
        "size_mib",
        "engine_drift",
        "float_layers",
    )
    found = {each: told[each] for each in names if told.get(each) is not None}
    if isinstance(drift := found.get("engine_drift"), dict):
        numbers = {key: value for key, value in drift.items() if isinstance(value, int | float)}
        found |= {"engine_drift": numbers, "engine_drift_from": "export"}
    read = Row.from_dict({"name": name, **found})
    return {each: getattr(read, each) for each in found}
