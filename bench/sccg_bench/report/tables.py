"""The tables of every report, as text; terminal, Markdown and HTML only lay them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sccg_bench.checks import PAPER_REMARK, PAPER_TARGETS, Outcome, limits, outcomes
from sccg_bench.quality import TISSUES
from sccg_bench.report.cells import (
    NOTHING,
    Table,
    device,
    digits_of_time,
    judged,
    mean_figure,
    milliseconds,
    number,
    operations,
    percent,
    pixels,
    times,
)
from sccg_bench.results import Results, Row
from sccg_bench.spot import SHARE

SPOT_SLICES = 3
Column = tuple[str, Callable[[Row], str]]


def tables(results: Results) -> list[Table]:
    """All tables of a report that have at least one line."""
    return [
        table
        for table in (
            latency_table(results),
            engines_table(results),
            series_table(results),
            drift_table(results),
            spot_table(results),
            engine_table(results),
            float_table(results),
            quality_table(results),
            tissue_table(results),
            limits_table(results),
            targets_table(results),
            patient_table(results),
        )
        if table.lines
    ]


def latency_table(results: Results) -> Table:
    """Speed, memory and size of every row, the cited and the missing ones included."""
    columns: list[Column] = [
        ("status", lambda row: row.status),
        ("precision", lambda row: row.precision or NOTHING),
        ("p50 ms", lambda row: milliseconds(row.latency_ms, "p50")),
        ("p90 ms", lambda row: milliseconds(row.latency_ms, "p90")),
        ("p99 ms", lambda row: milliseconds(row.latency_ms, "p99")),
        ("n", lambda row: NOTHING if row.latency_ms is None or row.latency_ms.n is None else str(row.latency_ms.n)),
        ("spread", lambda row: percent(row.latency_ms.spread if row.latency_ms else None)),
        ("size", lambda row: pixels(row.size)),
        ("vs teacher", lambda row: times(row.speedup_vs_teacher)),
        ("vs paper (cited)", lambda row: times(row.speedup_vs_paper)),
        ("native p50 ms", lambda row: milliseconds(row.latency_native_ms, "p50")),
        ("native size", lambda row: pixels(row.quality_size if row.latency_native_ms else None)),
        ("slices/s (streams; n)", _throughput),
        ("MiB on disk", lambda row: number(row.size_mib, 1)),
        ("peak MiB", lambda row: number(row.peak_rss_mib, 0)),
    ]
    if any(row.device_p50_ms is not None for row in results.rows):
        columns.insert(5, ("GPU alone ms", lambda row: digits_of_time(row.device_p50_ms)))
    rows = [row for row in results.rows if row.role != "control"]
    caption = (
        "One slice per query, input and output copied. Spread: how far the medians of the turns lie apart (10th to "
        "90th percentile, of p50). p99 only from 662 queries on. Ratios to the teacher come from this run. Slices/s: "
        "as many processes at once as there are streams, one thread each; n queries in all."
    )
    return _table("Latency", caption, rows, columns, ("status", "precision"))


def engines_table(results: Results) -> Table:
    """On what the measured rows ran."""
    columns: list[Column] = [
        ("engine", lambda row: " ".join(filter(None, (row.engine, row.engine_version))) or NOTHING),
        ("device", device),
        ("operations", operations),
    ]
    rows = [row for row in results.rows if row.status == "measured" and row.role != "control"]
    caption = (
        "Operations: convolutions and matrix products by the precision that the engine itself reports. ONNX Runtime "
        "and TensorRT-RTX report none: theirs are counted in the graph that they were given."
    )
    return _table("What ran", caption, rows, columns, ("engine", "device", "operations"))


def series_table(results: Results) -> Table:
    """What a clinic waits for: bundles from DICOM files to DICOM files."""
    columns: list[Column] = [
        ("ms per slice", lambda row: digits_of_time(row.figure("series", "end_to_end_ms"))),
        ("lowest to highest", lambda row: _extremes(row, "end_to_end_ms")),
        ("cold start ms", lambda row: digits_of_time(row.figure("series", "cold_start_ms"))),
        ("lowest to highest, cold", lambda row: _extremes(row, "cold_start_ms")),
        ("slices", lambda row: number(row.figure("series", "slices"), 0)),
        ("repeats", lambda row: number(row.figure("series", "repeats"), 0)),
    ]
    caption = (
        "A whole series, files in to files out, reading, compiling and writing included: medians over fresh processes. "
        "Cold start: from the start of a process to the first slice written."
    )
    return _table("DICOM to DICOM", caption, [row for row in results.rows if row.series], columns)


def drift_table(results: Results) -> Table:
    """What compression changed: every model against the teacher."""
    columns: list[Column] = [
        *[(label, _figure("drift", f"to_teacher_{name}", digits)) for label, name, digits in _CLOSE],
        ("worst 5 % MAE", _figure("drift", "to_teacher_worst5_mae_u8", 2)),
        ("hf ratio", _figure("quality", "hf_ratio", 3)),
        ("hf corr", _figure("quality", "hf_corr", 3)),
        ("phase ratio", _figure("quality", "phase_ratio", 2)),
        ("Δ PSNR", _figure("drift", "delta_psnr_db", 2, signed=True)),
        ("Δ SSIM", _figure("drift", "delta_ssim", 4, signed=True)),
        ("Δ MAE", _figure("drift", "delta_mae_u8", 2, signed=True)),
        ("Δ IoU", _figure("drift", "delta_iou_foreground", 3, signed=True)),
        ("Δ IoU bone", _figure("drift", "delta_iou_bone", 3, signed=True)),
        ("worst slice", lambda row: (row.landmarks or {}).get("worst", NOTHING)),
    ]
    caption = (
        "Against the teacher's output on the same slices; dB and grey levels on 0-255. hf ratio: energy of "
        "fine detail, 1 is right, below 1 is blur; hf corr: whether it lies in the right place; phase ratio: "
        "errors by phase of a 4x4 grid, far above 1 is a checkerboard. Δ: against the reference, model minus "
        "teacher; a guard against harm, not an aim."
    )
    return _table(
        "Drift: what compression cost", caption, [row for row in results.rows if row.drift], columns, ("worst slice",)
    )


def spot_table(results: Results) -> Table:
    """Slices of every model with the largest local differences to the teacher, and where they lie."""
    lines, marks = [], []
    for row in results.rows:
        parts = [part for part in row.per_slice if (part.get("spot") or {}).get("difference_u8") is not None]
        for part in sorted(parts, key=lambda part: -abs(part["spot"]["difference_u8"]))[:SPOT_SLICES]:
            spot, psnr = part["spot"], (part.get("drift") or {}).get("to_teacher_psnr_db")
            place = (str(spot.get(name, NOTHING)) for name in ("row", "column", "side_px"))
            figures = number(spot["difference_u8"], 1, signed=True), *place, number(psnr, 2)
            mean = _figure("drift", "to_teacher_spot_u8", 1)(row)
            lines.append((row.name, f"{part.get('case')}/{part.get('slice')}", *figures, mean))
            marks.append(row.role)
    header = ("model", "slice", "difference", "row", "column", "side px", "PSNR dB of the slice", "mean of all slices")
    caption = (
        f"A lesion that a model invents or drops moves no PSNR: so of every slice the square window in the head (side: "
        f"1/{SHARE} of the slice's) whose mean differs most from the teacher's, in grey levels on 0-255, positive is "
        f"too bright; row and column are its upper left pixel. The {SPOT_SLICES} slices with the largest, and the mean "
        "size over all. A displaced edge of bone gives one, too: look at the slice."
    )
    return Table("Largest local differences to the teacher", caption, header, tuple(lines), tuple(marks), (0, 1))


def tissue_table(results: Results) -> Table:
    """Every model by tissue: against the reference, and against the teacher."""
    rows = [row for row in results.rows if any(row.figure(group, name) is not None for group, name, *_ in _BY_TISSUE)]
    wanted = [each for each in _BY_TISSUE if any(row.figure(each[0], each[1]) is not None for row in rows)]
    columns: list[Column] = [
        (label, _figure(group, name, 2, signed=name.startswith("bias"))) for group, name, label in wanted
    ]
    if any((row.counts or {}).get("lesion") for row in rows):
        columns.append(("slices with a lesion", lambda row: str((row.counts or {}).get("lesion", NOTHING))))
    caption = (
        "Tissues of the real CT: air below -150 HU, bone from 250 HU on, soft tissue between them inside the head (60 "
        "and 200 of 255 where the CT has no unit); grey levels over the whole slice, a head holder and the air around "
        "included, HU inside the body alone; lesions as drawn in the data set's lesion/ folders. MAE in grey "
        "levels on 0-255 unless HU; bias: signed mean difference to the teacher (of the teacher itself: to the "
        "reference), positive is too bright."
    )
    return _table("By tissue", caption, rows, columns)


def engine_table(results: Results) -> Table:
    """What the engine changed against its own FP32 network."""
    columns: list[Column] = [
        *[(label, _figure("engine_drift", f"engine_to_fp32_{name}", digits)) for label, name, digits in _CLOSE],
        ("Δ PSNR", _figure("engine_drift", "engine_delta_psnr_db", 3, signed=True)),
        ("Δ SSIM", _figure("engine_drift", "engine_delta_ssim", 4, signed=True)),
        ("Δ MAE", _figure("engine_drift", "engine_delta_mae_u8", 3, signed=True)),
        ("measured", lambda row: {"export": "from export"}.get(row.engine_drift_from or "", "in this run")),
    ]
    caption = "Exported engine against its own FP32 network, output against output; Δ against the reference."
    return _table("Engine drift", caption, [row for row in results.rows if row.engine_drift], columns, ("measured",))


def float_table(results: Results) -> Table:
    """What a quantised model left in float, by name."""
    rows = [row for row in results.rows if row.float_layers]
    columns: list[Column] = [
        ("layers", lambda row: str(len(row.float_layers or ()))),
        ("INT8 by", lambda row: row.quantizer or ""),
        ("operations that ran", operations),
        ("names", lambda row: ", ".join(row.float_layers or ())),
    ]
    caption = "Layers of quantised models that stayed in float, by the names that the export wrote down."
    return _table("Layers left in float", caption, rows, columns, ("INT8 by", "operations that ran", "names"))


def quality_table(results: Results) -> Table:
    """Every model against the reference."""
    columns: list[Column] = [
        ("PSNR dB", _figure("quality", "psnr_db", 2)),
        ("SSIM", _figure("quality", "ssim", 4)),
        ("MAE", _figure("quality", "mae_u8", 2)),
        ("IoU foreground", _figure("quality", "iou_foreground", 3)),
        ("IoU bone", _figure("quality", "iou_bone", 3)),
        ("head: PSNR dB", _figure("quality", "psnr_head_db", 2)),
        ("head: SSIM", _figure("quality", "ssim_head", 4)),
        ("head: MAE", _figure("quality", "mae_head_u8", 2)),
        ("slices", lambda row: str((row.counts or {}).get("slices", NOTHING))),
        ("patients", lambda row: str((row.counts or {}).get("patients", NOTHING))),
        ("capped", lambda row: str((row.counts or {}).get("capped", NOTHING))),
        ("empty masks (bone)", _empty_masks),
    ]
    if any((row.counts or {}).get("no_reference") for row in results.rows):
        columns.append(("slices without a reference", lambda row: str((row.counts or {}).get("no_reference", NOTHING))))
    if any((row.counts or {}).get("not_finite") for row in results.rows):
        columns.append(("not finite", lambda row: str((row.counts or {}).get("not_finite", 0))))
    if any(row.figure("quality", "mae_hu") is not None for row in results.rows):
        columns[8:8] = [
            ("MAE HU", _figure("quality", "mae_hu", 1)),
            ("PSNR HU", _figure("quality", "psnr_hu_db", 2)),
            ("SSIM HU", _figure("quality", "ssim_hu", 4)),
        ]
    caption = (
        "Against the reference; grey levels on 0-255, mean per patient, then over patients. Capped: slices whose PSNR "
        "was cut off at 100 dB; ≥: a mean with such slices in it. Empty masks: slices whose overlap counts as 1, as "
        "there was nothing to overlap."
    )
    if "MAE HU" in dict(columns) and (window := results.provenance.get("ct_window_hu")):
        caption += f" HU: errors beyond the data's window, {window} HU, are not seen."
    rows = [row for row in results.rows if row.figure("quality", "psnr_db") is not None]
    return _table("Quality", caption, rows, columns)


def limits_table(results: Results) -> Table:
    """Every model and the control against the limits."""
    roles = ("model", "control", "teacher engine")
    rows = [row for row in results.rows if row.role in roles and (row.drift or row.engine_drift)]
    held = limits(results.direction)
    caption = "Engineering limits, not a clinical validation. The controls are blurred teachers: each must miss one."
    return _outcome_table(
        "Limits: met or not met", caption, rows, [(f"{each.label}: {each.text}", each) for each in held]
    )


def targets_table(results: Results) -> Table:
    """Every row with a reference against the paper's targets."""
    rows = [row for row in results.rows if row.figure("quality", "psnr_db") is not None]
    columns = [(f"{each.label}: {each.text}", each) for each in PAPER_TARGETS]
    return _outcome_table("The paper's targets: met or not met", PAPER_REMARK, rows, columns)


def patient_table(results: Results) -> Table:
    """Drift and quality per patient."""
    wanted = (
        ("drift", "to_teacher_psnr_db", 2, False),
        ("drift", "to_teacher_psnr_head_db", 2, False),
        ("quality", "hf_ratio", 3, False),
        ("drift", "delta_psnr_db", 2, True),
        ("drift", "delta_ssim", 4, True),
        ("quality", "psnr_db", 2, False),
        ("quality", "ssim", 4, False),
        ("quality", "mae_u8", 2, False),
    )
    lines, marks = [], []
    for row in results.rows:
        for part in row.per_patient if row.role != "control" else ():
            figures = (
                number((part.get(group) or {}).get(name), digits, signed) for group, name, digits, signed in wanted
            )
            lines.append((row.name, str(part.get("case")), str(part.get("slices")), *figures))
            marks.append(row.role)
    header = (
        *("model", "patient", "slices", "to teacher: PSNR dB", "to teacher: head PSNR dB", "hf ratio"),
        *("Δ PSNR", "Δ SSIM", "PSNR dB", "SSIM", "MAE"),
    )
    caption = (
        "With fewer than ten patients no difference here is called significant. hf ratio: to the teacher; of the "
        "teacher itself: to the reference."
    )
    return Table("Per patient", caption, header, tuple(lines), tuple(marks), (0, 1))


def notes(results: Results) -> list[tuple[str, str, str]]:
    """(names, status, note) of the rows that have a note; rows of one status and note are told together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if row.note:
            grouped.setdefault((row.status, row.note), []).append(row.name)
    return [("; ".join(names), status, note) for (status, note), names in grouped.items()]


_CLOSE = (
    ("PSNR dB", "psnr_db", 2),
    ("SSIM", "ssim", 4),
    ("MAE", "mae_u8", 2),
    ("head PSNR dB", "psnr_head_db", 2),
    ("head SSIM", "ssim_head", 4),
)


def _figure(group: str, name: str, digits: int, signed: bool = False) -> Callable[[Row], str]:
    return lambda row: mean_figure(row, group, name, digits, signed)


_BY_TISSUE = (
    *(("quality", f"mae_{tissue}_u8", f"MAE {tissue}") for tissue in TISSUES),
    *(("quality", f"mae_{tissue}_hu", f"MAE {tissue} HU") for tissue in TISSUES),
    *(("drift", f"to_teacher_mae_{tissue}_u8", f"to teacher: MAE {tissue}") for tissue in TISSUES),
    *(("quality", f"bias_{tissue}_u8", f"bias {tissue}") for tissue in TISSUES),
)
"""Group, name and label of the figures by tissue."""


def _throughput(row: Row) -> str:
    rate, streams, count = (row.figure("throughput", name) for name in ("slices_per_s", "streams", "n"))
    return NOTHING if rate is None else f"{number(rate, 1)} ({number(streams, 0)}; {number(count, 0)})"


def _extremes(row: Row, name: str) -> str:
    low, high = (digits_of_time(row.figure("series", f"{name}_{end}")) for end in ("low", "high"))
    return f"{low} to {high}"


def _empty_masks(row: Row) -> str:
    counts = row.counts or {}
    return f"{counts.get('empty_iou_foreground', 0)} ({counts.get('empty_iou_bone', 0)})" if counts else NOTHING


def _table(title: str, caption: str, rows: Sequence[Row], columns: Sequence[Column], text: Sequence[str] = ()) -> Table:
    lines = tuple((row.name, *(get(row) for _, get in columns)) for row in rows)
    marks = tuple(row.role if row.status == "measured" else row.status for row in rows)
    header = ("model", *(label for label, _ in columns))
    return Table(title, caption, header, lines, marks, (0, *(header.index(label) for label in text)))


def _origin(row: Row, outcome: Outcome) -> str:
    """Marks a figure that this run did not measure."""
    return ", from export" if outcome.limit.group == "engine_drift" and row.engine_drift_from == "export" else ""


def _outcome_table(title: str, caption: str, rows: Sequence[Row], columns: Sequence[tuple[str, Any]]) -> Table:
    words = {True: "met", False: "NOT met", None: "not measured"}
    lines = []
    for row in rows:
        found = outcomes(row, [limit for _, limit in columns])
        cells = (
            f"{words[each.met]} ({judged(each)}{_origin(row, each)})" if each.met is not None else words[None]
            for each in found
        )
        lines.append((row.name, *cells))
    header = ("model", *(label for label, _ in columns))
    return Table(title, caption, header, tuple(lines), tuple(row.role for row in rows))
