"""The tables of every report, as text; terminal, Markdown and HTML only lay them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sccg_bench.checks import PAPER_REMARK, PAPER_TARGETS, limits, outcomes
from sccg_bench.latency import Latency
from sccg_bench.metrics import CAP_DB
from sccg_bench.results import Results, Row

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """Title, header and cells; ``marks`` gives one word per line (a status or role) for colours.

    ``text`` gives the columns that hold words; the rest are figures and set flush right.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...]
    text: tuple[int, ...] = (0,)


Column = tuple[str, Callable[[Row], str]]


def tables(results: Results) -> list[Table]:
    """All tables of a report that have at least one line."""
    return [
        table
        for table in (
            latency_table(results),
            drift_table(results),
            engine_table(results),
            float_table(results),
            quality_table(results),
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
        ("MiB on disk", lambda row: number(row.size_mib, 1)),
        ("peak MiB", lambda row: number(row.peak_rss_mib, 0)),
        ("engine", lambda row: " ".join(filter(None, (row.engine, row.engine_version))) or NOTHING),
        ("device", device),
        ("ran", operations),
    ]
    rows = [row for row in results.rows if row.role != "control"]
    caption = (
        "One slice per query, input and output copied. Spread: how far the medians of the turns lie apart (10th to "
        "90th percentile, of p50). p99 only from 662 queries on. Ratios to the teacher come from this run. Ran: "
        "operations by the precision that the engine itself reports."
    )
    return _table("Latency", caption, rows, columns, ("status", "precision", "engine", "device", "ran"))


def drift_table(results: Results) -> Table:
    """What compression changed: every model against the teacher."""
    columns: list[Column] = [
        *[(label, _figure("drift", f"to_teacher_{name}", digits)) for label, name, digits in _CLOSE],
        ("worst 5 % MAE", _figure("drift", "to_teacher_worst5_mae_u8", 2)),
        ("hf ratio", _figure("quality", "hf_ratio", 3)),
        ("hf corr", _figure("quality", "hf_corr", 3)),
        ("phase ratio", _figure("quality", "phase_ratio", 2)),
        ("bias bone", _figure("quality", "bias_bone_u8", 2, signed=True)),
        ("bias soft", _figure("quality", "bias_soft_u8", 2, signed=True)),
        ("Δ PSNR", _figure("drift", "delta_psnr_db", 2, signed=True)),
        ("Δ SSIM", _figure("drift", "delta_ssim", 4, signed=True)),
        ("Δ MAE", _figure("drift", "delta_mae_u8", 2, signed=True)),
        ("Δ IoU", _figure("drift", "delta_iou_foreground", 3, signed=True)),
        ("worst slice", lambda row: (row.landmarks or {}).get("worst", NOTHING)),
    ]
    caption = (
        "Against the teacher's output on the same slices; dB and grey levels on 0-255. hf ratio: 1 is right, below 1 "
        "is blur. Δ: against the reference, model minus teacher; a guard against harm, not an aim."
    )
    return _table(
        "Drift: what compression cost", caption, [row for row in results.rows if row.drift], columns, ("worst slice",)
    )


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
    caption = (
        "Layers of quantised models that stayed in float, by the names that the export wrote down. What ran is what "
        "the engine itself reports."
    )
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
        ("empty masks", _empty_masks),
    ]
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
        "was cut off at 100 dB. Empty masks: slices whose overlap counts as 1 because there was nothing to overlap."
    )
    rows = [row for row in results.rows if row.figure("quality", "psnr_db") is not None]
    return _table("Quality", caption, rows, columns)


def limits_table(results: Results) -> Table:
    """Every model and the control against the limits."""
    rows = [row for row in results.rows if row.role in ("model", "control") and (row.drift or row.engine_drift)]
    held = limits(results.direction)
    caption = "Engineering limits, not a clinical validation. The control is a blurred teacher and must miss one."
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
    caption = "With fewer than ten patients no difference here is called significant."
    return Table("Per patient", caption, header, tuple(lines), tuple(marks), (0, 1))


def number(value: Any, digits: int, signed: bool = False) -> str:
    """A figure with so many decimals, or a dash where there is none."""
    if value is None:
        return NOTHING
    rounded = round(value, digits) + 0.0  # no negative zero
    text = f"{rounded:+.{digits}f}" if signed else f"{rounded:.{digits}f}"
    return text.replace("-", "−")


def milliseconds(latency: Latency | None, name: str) -> str:
    """Three significant digits."""
    value = getattr(latency, name, None)
    return NOTHING if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def times(value: float | None) -> str:
    """A ratio such as ``273x``."""
    return NOTHING if value is None else f"{value:.{2 if value < 10 else 0}f}×"


def percent(value: float | None) -> str:
    """A share in per cent."""
    return NOTHING if value is None else f"{value:.0%}"


def pixels(size: tuple[int, int] | None) -> str:
    """Rows by columns."""
    return NOTHING if size is None else f"{size[0]}×{size[1]}"


def device(row: Row) -> str:
    """Device and threads, such as ``cpu, 2 threads``."""
    threads = f"{row.threads} thread{'' if row.threads == 1 else 's'}" if row.threads else None
    return ", ".join(filter(None, (row.device, threads))) or NOTHING


def operations(row: Row) -> str:
    """Operations by the precision that the engine says ran, such as ``13 int8, 1 fp32``."""
    return ", ".join(f"{count} {kind}" for kind, count in (row.precision_ran or {}).items()) or NOTHING


_CLOSE = (
    ("PSNR dB", "psnr_db", 2),
    ("SSIM", "ssim", 4),
    ("MAE", "mae_u8", 2),
    ("head PSNR dB", "psnr_head_db", 2),
    ("head SSIM", "ssim_head", 4),
)


def _figure(group: str, name: str, digits: int, signed: bool = False) -> Callable[[Row], str]:
    capped = name.endswith("psnr_db") and "delta" not in name

    def get(row: Row) -> str:
        value = row.figure(group, name)
        return f"≥{CAP_DB:g}" if capped and value == CAP_DB else number(value, digits, signed)

    return get


def _empty_masks(row: Row) -> str:
    counts = row.counts or {}
    return f"{counts.get('empty_iou_foreground', 0)} + {counts.get('empty_iou_bone', 0)} bone" if counts else NOTHING


def _table(title: str, caption: str, rows: Sequence[Row], columns: Sequence[Column], text: Sequence[str] = ()) -> Table:
    lines = tuple((row.name, *(get(row) for _, get in columns)) for row in rows)
    marks = tuple(row.role if row.status == "measured" else row.status for row in rows)
    header = ("model", *(label for label, _ in columns))
    return Table(title, caption, header, lines, marks, (0, *(header.index(label) for label in text)))


def _outcome_table(title: str, caption: str, rows: Sequence[Row], columns: Sequence[tuple[str, Any]]) -> Table:
    words = {True: "met", False: "NOT met", None: "not measured"}
    lines = []
    for row in rows:
        found = outcomes(row, [limit for _, limit in columns])
        cells = (
            f"{words[each.met]} ({number(each.value, 3)})" if each.met is not None else words[None] for each in found
        )
        lines.append((row.name, *cells))
    header = ("model", *(label for label, _ in columns))
    return Table(title, caption, header, tuple(lines), tuple(row.role for row in rows))
