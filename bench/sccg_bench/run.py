"""One bench run: a process per model, latency in turns, outputs from those same processes, quality and drift."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sccg_bench.latency import Latency, LatencyPlan, Profile, plan_of, take_turns
from sccg_bench.machine import LoadWatch, describe_machine
from sccg_bench.protocols import Pair, Runnable
from sccg_bench.quality import Judge, QualityResult, blurred
from sccg_bench.results import Results, Role, Row, Status, paper_row, with_speedups
from sccg_bench.worker import TIMEOUT_S, Worker, WorkerError
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError, SccgError
from sccg_runtime.intensity import FloatArray, Intensity

Size = tuple[int, int]
UNSTEADY = 0.2
"""Spread between turns, as a share of p50, from which on a row is warned about."""
_TELL_EVERY_S = 10.0
CONTROL_NAME = "control: teacher blurred 3x3"
CONTROL_NOTE = "control that must fail: hf_ratio far below 1, whatever its PSNR says"


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
        CPU threads of every engine.
    control
        Add the blurred teacher, the control that must fail.
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
    control: bool = True
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Results, and the arrays behind them for picture sheets.

    Attributes
    ----------
    results
        What goes into the JSON.
    pairs
        Slices that were used, in order.
    outputs
        Row name -> (1, H, W) per pair; only of models that gave all of them.
    """

    results: Results
    pairs: tuple[Pair, ...]
    outputs: dict[str, list[FloatArray]]


def run_bench(
    runnables: Sequence[Runnable],
    pairs: Iterable[Pair],
    options: BenchOptions,
    *,
    provenance: Mapping[str, Any] | None = None,
    extra_rows: Sequence[Row] = (),
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Measure models; one that fails keeps its row, marked, and the others go on.

    Parameters
    ----------
    runnables
        In the order of the table. Names must differ.
    pairs
        Slices that have the direction's input; those without are left out and counted in a warning. None at all:
        latency only.
    options
        See :class:`BenchOptions`.
    provenance
        Goes into the results as it is, ``cases`` added.
    extra_rows
        Rows of what cannot be measured here (:func:`sccg_bench.results.not_measured_row`).
    progress
        Called with one line per step.

    Raises
    ------
    InputError
        Names are not unique, the teacher or an FP32 network is not among them, or a slice is no float32 (1, H, W)
        or differs in size from its pair.

    Example
    -------
    >>> found = run_bench([teacher, student], pairs, BenchOptions(direction="mr2ct"))  # doctest: +SKIP
    >>> found.results.rows[0].latency_ms.p50  # doctest: +SKIP
    1770.2
    """
    names = [runnable.name for runnable in runnables]
    _check_names(names, options)
    source = modalities(options.direction)[0]
    given = list(pairs)
    _check_shapes(given)
    usable = [pair for pair in given if _input(pair, source) is not None]
    warnings = []
    if len(usable) < len(given):
        warnings.append(f"{len(given) - len(usable)} of {len(given)} slices have no {source} and were left out")

    run = _Run(options, progress or (lambda line: None))
    with contextlib.ExitStack() as stack:
        for runnable in runnables:
            run.start(stack, runnable)
        watch = LoadWatch(lambda: [worker.pid for worker in run.workers.values()])
        run.measure(options.size, native=False)
        outputs = run.outputs([image for pair in usable if (image := _input(pair, source)) is not None])
        disturbed = watch.warning()
    warnings += [disturbed] if disturbed else []
    warnings += [text for row in run.rows.values() if (text := _unsteady(row)) is not None]
    rows = _judged(run.rows, usable, outputs, options)
    warnings += [text for row in rows if (text := _not_finite(row)) is not None]
    known = dict(provenance or {})
    known.setdefault("cases", list(dict.fromkeys(pair.case for pair in usable)))
    results = Results(
        machine=describe_machine().to_dict(),
        provenance=known,
        rows=(*with_speedups(rows, options.teacher_name), *extra_rows, paper_row()),
        direction=options.direction,
        profile="custom" if isinstance(options.profile, LatencyPlan) else options.profile,
        warnings=tuple(warnings),
    )
    return BenchResult(results, tuple(usable), outputs)


class _Run:
    """Workers and rows of a run; a model that fails loses its worker and keeps its row."""

    def __init__(self, options: BenchOptions, progress: Callable[[str], None]) -> None:
        self._options, self._progress = options, progress
        self._plan = plan_of(options.profile)
        self._told = time.monotonic()
        self.workers: dict[str, Worker] = {}
        self.rows: dict[str, Row] = {}

    def start(self, stack: contextlib.ExitStack, runnable: Runnable) -> None:
        name = runnable.name
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
                    self.rows[name] = replace(self.rows[name], size=size, **_described(told))
                slow[name] = self.workers[name].warm_up(self._plan)
        self._progress(f"latency at {size[0]}x{size[1]}: {len(slow)} models take turns")
        blocks = {name: self._block(name, size) for name in slow}
        for name, latency in take_turns(blocks, slow, self._plan).items():
            self._keep(name, latency, size, native)

    def outputs(self, images: Sequence[FloatArray]) -> dict[str, list[FloatArray]]:
        """Native latency, then the outputs of every model for all images; models that fail on one are left out."""
        if not images:
            return {}
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        counted = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
        native = max(counted, key=lambda size: counted[size])
        if native == self._options.size:
            for name, row in self.rows.items():
                self.rows[name] = replace(row, quality_size=native, latency_native_ms=row.latency_ms)
        else:
            self.measure(native, native=True)
        found: dict[str, list[FloatArray]] = {}
        order = sorted(counted, key=lambda size: size != native)
        for name in list(self.workers):
            self._progress(f"{name}: {len(images)} slices")
            answers: dict[int, FloatArray] = {}
            for size in order:
                with self._guarded(name, size):
                    if size != native:
                        self.workers[name].open(size)
                    for index in (index for index, each in enumerate(sizes) if each == size):
                        answers[index] = self.workers[name].run(images[index])
                if name not in self.workers:
                    break
            else:
                found[name] = [answers[index] for index in range(len(images))]
        return found

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
            self.rows[name] = replace(self.rows[name], peak_rss_mib=self.workers[name].peak_rss_mib())

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


def _judged(
    rows: Mapping[str, Row], pairs: Sequence[Pair], outputs: Mapping[str, list[FloatArray]], options: BenchOptions
) -> list[Row]:
    """Rows with their quality and drift, and the control behind the teacher."""
    teacher = options.teacher_name
    teacher_outputs = outputs.get(teacher) if teacher is not None else None
    judge = Judge(pairs, options.direction, teacher_outputs, options.ct)
    judged: list[Row] = []
    for name, row in rows.items():
        fp32 = options.fp32_of.get(name)
        if name in outputs:
            result = judge.judge(outputs[name], None if fp32 is None else outputs.get(fp32), name == teacher)
            judged.append(with_quality(row, result))
        else:
            judged.append(row)
        if name == teacher and teacher_outputs is not None and options.control:
            control = Row(name=CONTROL_NAME, role="control", note=CONTROL_NOTE, quality_size=row.quality_size)
            judged.append(with_quality(control, judge.judge(blurred(teacher_outputs))))
    return judged


def with_quality(row: Row, result: QualityResult) -> Row:
    """The row with all figures of a result; drift from a bundle's export stays where none was measured now."""
    measured = bool(result.summary.engine_drift)
    return replace(
        row,
        quality=result.summary.quality or None,
        drift=result.summary.drift or None,
        engine_drift=result.summary.engine_drift if measured else row.engine_drift,
        engine_drift_from="this run" if measured else row.engine_drift_from,
        detail_against=result.detail_against,
        counts=result.summary.counts,
        landmarks={which: f"{part.case}/{part.slice}" for which, part in result.landmarks.items()} or None,
        per_patient=tuple(part.to_dict() for part in result.patients),
        per_slice=tuple(part.to_dict() for part in result.slices),
    )


def _described(told: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a row out of a runnable's description; a bundle's ``engine_drift`` is marked as from its export."""
    names = (
        "engine",
        "engine_version",
        "device",
        "precision",
        "precision_ran",
        "quantizer",
        "size_mib",
        "engine_drift",
    )
    found = {name: told[name] for name in names if told.get(name) is not None}
    if told.get("float_layers") is not None:
        found["float_layers"] = tuple(str(name) for name in told["float_layers"])
    if "engine_drift" in found:
        numbers = {str(key): value for key, value in found["engine_drift"].items() if isinstance(value, int | float)}
        found |= {"engine_drift": numbers, "engine_drift_from": "export"}
    return found


def _unsteady(row: Row) -> str | None:
    """One line if the medians of a model's turns lie too far apart to trust their common median."""
    spread = row.latency_ms.spread if row.latency_ms is not None else None
    if spread is None or spread <= UNSTEADY:
        return None
    return f"{row.name}: the medians of its turns lie {spread:.0%} of p50 apart: measure again on a quiet machine"


def _not_finite(row: Row) -> str | None:
    """One line if figures of a row could not be computed, with their names and how often."""
    count = (row.counts or {}).get("not_finite", 0)
    if not count:
        return None
    names = Counter(name for part in row.per_slice for name in part.get("not_finite") or ())
    listed = ", ".join(f"{name} {times}x" for name, times in names.items()) or "volume figures"
    return f"{row.name}: {count} figures are not finite and were left out of the means: {listed}"


def _check_shapes(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        shapes = [image.shape for image in (pair.mr, pair.ct) if image is not None]
        kinds = [image.dtype.name for image in (pair.mr, pair.ct) if image is not None]
        if any(len(shape) != 3 or shape[0] != 1 for shape in shapes) or len(set(shapes)) > 1:
            raise InputError(f"bench: {pair.case}/{pair.slice}: MR and CT must be (1, H, W) of one size, not {shapes}")
        if set(kinds) - {"float32"}:
            raise InputError(f"bench: {pair.case}/{pair.slice}: slices must be float32, not {', '.join(kinds)}")


def _input(pair: Pair, source: str) -> FloatArray | None:
    return pair.mr if source == "MR" else pair.ct


def _check_names(names: Sequence[str], options: BenchOptions) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"bench: more than one model is called {', '.join(twice)}")
    wanted = {options.teacher_name, *options.fp32_of.values()} - {None}
    for name in sorted(str(each) for each in wanted - set(names)):
        raise InputError(f"bench: {name!r} is named as teacher or FP32 network but is not among {', '.join(names)}")
