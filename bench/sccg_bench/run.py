"""One bench run: a process per model, latency in turns, outputs from those same processes, quality and drift."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sccg_bench.latency import LatencyPlan
from sccg_bench.machine import describe_machine
from sccg_bench.measuring import BenchOptions, Measuring
from sccg_bench.on_disk import check_room, on_disk
from sccg_bench.protocols import Pair, Runnable
from sccg_bench.quality import Judge, QualityResult, blurred
from sccg_bench.results import Results, Row, paper_row, with_speedups
from sccg_runtime.direction import modalities
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray

CONTROL_NAME = "control: teacher blurred 3x3"
CONTROLS = {CONTROL_NAME: 1, f"{CONTROL_NAME} three times": 3}
"""Name of the row -> how often the teacher's output is blurred."""
CONTROL_NOTE = "control that must fail: hf_ratio far below 1, whatever its PSNR says"


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
        Row name -> (1, H, W) per pair, read-only and on disk; only of models that gave all of them.
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
    remarks: Sequence[str] = (),
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
    remarks
        What is known beforehand and makes figures mean less: the first of the results' warnings.

    Raises
    ------
    InputError
        Names are not unique, the teacher or an FP32 network is not among them, a slice is no float32 (1, H, W) or
        differs in size from its pair, or the temporary folder has no room for the models' outputs.

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
    usable = [pair for pair in given if pair.image(source) is not None]
    warnings = list(remarks)
    if len(usable) < len(given):
        warnings.append(f"{len(given) - len(usable)} of {len(given)} slices have no {source} and were left out")
    images = [image for pair in usable if (image := pair.image(source)) is not None]
    check_room((len(names) + 1) * sum(image.nbytes for image in images))  # told before minutes of measuring

    run = Measuring(options, progress or (lambda line: None))
    with contextlib.ExitStack() as stack:
        for runnable in runnables:
            run.start(stack, runnable)
        run.measure(options.size, native=False)
        outputs = run.outputs(images)
        run.throughput()
        run.series()
    warnings += run.warnings
    rows = _judged(run.rows, usable, outputs, options)
    told = [unsteady(run.rows.values()), *(text for row in rows for text in (other_precision(row), _not_finite(row)))]
    warnings += [text for text in told if text is not None]
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


def _judged(
    rows: Mapping[str, Row], pairs: Sequence[Pair], outputs: Mapping[str, list[FloatArray]], options: BenchOptions
) -> list[Row]:
    """Rows with their quality and drift, and the controls behind the teacher."""
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
            for label, times in CONTROLS.items():
                control = Row(name=label, role="control", note=CONTROL_NOTE, quality_size=row.quality_size)
                result = judge.judge(on_disk(blurred(output, times) for output in teacher_outputs))
                judged.append(with_quality(control, result))
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


def unsteady(rows: Iterable[Row]) -> str | None:
    """One line naming all models whose turns' medians lie too far apart to trust the common median, at either size."""
    apart = []
    for row in rows:
        timed = [one for one in (row.latency_ms, row.latency_native_ms) if one is not None and one.is_unsteady]
        if timed:
            apart.append(f"{row.name} {max(one.spread or 0.0 for one in timed):.0%}")
    if not apart:
        return None
    return f"measure again on a quiet machine: medians of turns lie far apart (in shares of p50): {'; '.join(apart)}"


def other_precision(row: Row) -> str | None:
    """One line if nothing ran in the precision that was asked for, or in FP32's place something else."""
    ran, asked = row.precision_ran, row.precision
    if row.engine == "openvino" and asked == "fp16":
        asked = "fp32"  # weights are stored in FP16, arithmetic is float32
    if not ran or asked is None or (set(ran) == {asked} if asked == "fp32" else asked in ran):
        return None
    listed = ", ".join(f"{count} {kind}" for kind, count in ran.items())
    return f"{row.name}: {asked} was asked for, but the operations that ran are {listed}"


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
            raise InputError(f"bench: {pair.label}: MR and CT must be (1, H, W) of one size, not {shapes}")
        if pair.lesion is not None and pair.lesion.shape != shapes[0][1:]:
            raise InputError(f"bench: {pair.label}: the lesion mask is {pair.lesion.shape}, not {shapes[0][1:]}")
        if set(kinds) - {"float32"}:
            raise InputError(f"bench: {pair.label}: slices must be float32, not {', '.join(kinds)}")


def _check_names(names: Sequence[str], options: BenchOptions) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"bench: more than one model is called {', '.join(twice)}")
    wanted = {options.teacher_name, *options.fp32_of.values()} - {None}
    for name in sorted(str(each) for each in wanted - set(names)):
        raise InputError(f"bench: {name!r} is named as teacher or FP32 network but is not among {', '.join(names)}")
