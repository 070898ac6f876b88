"""``sccg-bench/1``: the one JSON that every table, report and regression gate is made from.

Unknown values are null, readers ignore unknown keys, and there is no NaN or infinity in it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast, get_args

from sccg_bench.latency import Latency
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError
from sccg_runtime.files import write_text

SCHEMA = "sccg-bench/1"
Status = Literal["measured", "not measured", "failed", "cited"]
Role = Literal["teacher", "teacher engine", "model", "control", "cited"]
"""``teacher``: what drift refers to. ``teacher engine``: the same network on another engine, no compressed model."""
FIGURES = ("throughput", "series", "quality", "drift", "engine_drift")
"""Fields of a row that hold figures by name."""
_LARGEST = sys.float_info.max
_TEXTS = (
    *("note", "engine", "engine_version", "device", "precision", "quantizer"),
    *("engine_drift_from", "detail_against"),
)
PAPER_MS = 2730.0
PAPER_SIZE = (512, 512)
PAPER_NAME = "paper, RTX 3080 Ti"
PAPER_NOTE = (
    "Cited, not measured here: 2.73 s per image as published for scCycleGAN (Jeong et al. 2024). What that time "
    "contains is not stated (a network of this kind takes about 1.8 s in PyTorch on two CPU cores), so it is no "
    "comparison of hardware."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on one engine and device.

    Attributes
    ----------
    name, role
        Name in every table; what the row is for.
    status, note
        ``measured``, ``not measured`` (with the reason in ``note``), ``failed`` (the same) or ``cited``.
    engine, engine_version, device, precision, precision_ran
        As the model itself reports after it was opened; ``precision_ran`` counts operations by precision.
    float_layers
        Names of the layers that stayed in float although the model is quantised, as its export wrote them down; None
        where nothing is known.
    quantizer
        What made it INT8, with its version, as its export wrote it down; None where nothing is known.
    threads
        CPU threads.
    size, latency_ms
        (rows, columns) in pixels, and latency there.
    quality_size, latency_native_ms
        The same at the size that quality was measured at.
    size_mib, peak_rss_mib
        Bytes on disk; peak resident memory of a process that did nothing else than the first latency part. 2^20 bytes.
    device_p50_ms
        Median time of a query by the GPU's own events, without copies; None on a CPU.
    throughput
        ``slices_per_s`` of ``streams`` at ``size``, from ``n`` queries: that many processes at once, each with one
        thread and one slice at a time.
    series
        Of a whole DICOM series, files in to files out, by a bundle: ``end_to_end_ms`` per slice, and ``cold_start_ms``
        from the start of a process to the first slice written; medians of ``repeats`` fresh processes with their
        extremes (``..._low``, ``..._high``), and ``slices``.
    speedup_vs_paper
        2730 ms / p50 at 512x512: cited, whatever else the row is.
    speedup_vs_teacher
        p50 of the teacher in PyTorch FP32, same device and run, over p50.
    quality, drift, engine_drift
        Mean figures of METRICS, by name; None where there is nothing to compare with.
    engine_drift_from
        ``"this run"``, or ``"export"`` where they come from the bundle's drift.json.
    detail_against
        What ``hf_ratio`` and its like compare with: ``"teacher"`` or ``"reference"``.
    counts
        Patients, slices, capped slices, slices with an empty union, slices without a reference.
    landmarks
        ``worst``, ``median`` and ``best`` slice as ``"case/slice"``, and ``spot``: the largest local difference's.
    per_patient, per_slice
        The same figures, closer.
    """

    name: str
    role: Role = "model"
    status: Status = "measured"
    note: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    device: str | None = None
    precision: str | None = None
    precision_ran: dict[str, Any] | None = None
    float_layers: tuple[str, ...] | None = None
    quantizer: str | None = None
    threads: int | None = None
    size: tuple[int, int] | None = None
    latency_ms: Latency | None = None
    quality_size: tuple[int, int] | None = None
    latency_native_ms: Latency | None = None
    size_mib: float | None = None
    peak_rss_mib: float | None = None
    device_p50_ms: float | None = None
    throughput: dict[str, float | None] | None = None
    series: dict[str, float | None] | None = None
    speedup_vs_paper: float | None = None
    speedup_vs_teacher: float | None = None
    quality: dict[str, float | None] | None = None
    drift: dict[str, float | None] | None = None
    engine_drift: dict[str, float | None] | None = None
    engine_drift_from: str | None = None
    detail_against: str | None = None
    counts: dict[str, int] | None = None
    landmarks: dict[str, str] | None = None
    per_patient: tuple[dict[str, Any], ...] = ()
    per_slice: tuple[dict[str, Any], ...] = ()

    def figure(self, group: str, name: str) -> float | None:
        """One figure, or None; ``group`` is one of :data:`FIGURES`."""
        figures = cast("dict[str, float | None] | None", getattr(self, group))
        return None if figures is None else figures.get(name)

    @property
    def worst_slice(self) -> tuple[str, float] | None:
        """``case/slice`` and PSNR to the teacher inside the head, dB, of the slice that has the lowest."""
        found = [
            (f"{part.get('case')}/{part.get('slice')}", value)
            for part in self.per_slice
            if (value := (part.get("drift") or {}).get("to_teacher_psnr_head_db")) is not None
        ]
        return min(found, key=lambda each: each[1], default=None)

    def patients(self) -> dict[str, Row]:
        """Case -> the row with the figures of that patient alone."""
        return {
            part["case"]: replace(
                self,
                quality=part.get("quality"),
                drift=part.get("drift"),
                engine_drift=part.get("engine_drift"),
                counts=None,
                per_patient=(part,),
                per_slice=tuple(each for each in self.per_slice if each["case"] == part["case"]),
            )
            for part in self.per_patient
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON form, every key present."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("latency_ms", "latency_native_ms"):
            values[name] = values[name].to_dict() if values[name] is not None else None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Read a row; unknown keys are ignored, missing ones are unknown values.

        Raises
        ------
        InputError
            The name is missing, or a value has the wrong type.
        """
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        if not isinstance(known.get("name"), str):
            raise InputError("bench results: a row has no name")
        label = f"bench results: row {known['name']!r}"
        for name, choices in (("status", get_args(Status)), ("role", get_args(Role))):
            if name in known and known[name] not in choices:
                raise InputError(f"{label}: {name} {known[name]!r} is none of {', '.join(choices)}")
        for name in ("latency_ms", "latency_native_ms"):
            known[name] = _latency(known.get(name), f"{label}: {name}")
        for name in ("size", "quality_size"):
            known[name] = _size(known.get(name), f"{label}: {name}")
        for name in (*FIGURES, "counts", "landmarks", "precision_ran"):
            if known.get(name) is not None and not isinstance(known[name], dict):
                raise InputError(f"{label}: {name} is not an object")
        for name in (*FIGURES, "counts"):
            for key, value in (known.get(name) or {}).items():
                _number(value, f"{label}: {name}.{key}")
        for name in ("size_mib", "peak_rss_mib", "device_p50_ms", "speedup_vs_paper", "speedup_vs_teacher", "threads"):
            _number(known.get(name), f"{label}: {name}")
        layers = known.get("float_layers")
        if layers is not None:
            if not isinstance(layers, list | tuple) or not all(isinstance(each, str) for each in layers):
                raise InputError(f"{label}: float_layers is not a list of names")
            known["float_layers"] = tuple(layers)
        for name in _TEXTS:
            if not isinstance(known.get(name), str | None):
                raise InputError(f"{label}: {name} is not text")
        if not all(isinstance(value, str) for value in (known.get("landmarks") or {}).values()):
            raise InputError(f"{label}: landmarks are not text")
        for name in ("per_patient", "per_slice"):
            parts = known.get(name) or ()
            if not isinstance(parts, list | tuple) or not all(isinstance(part, dict) for part in parts):
                raise InputError(f"{label}: {name} is not a list of objects")
            for part, key in product(parts, ("counted", "not_finite")):
                words = part.get(key) or ()
                if not isinstance(words, list | tuple) or not all(isinstance(each, str) for each in words):
                    raise InputError(f"{label}: {name}: {key} is not a list of names")
            for part, group in product(parts, (*FIGURES, "spot")):
                figures = part.get(group)
                if figures is not None and not isinstance(figures, dict):
                    raise InputError(f"{label}: {name}: {group} is not an object")
                for key, value in (figures or {}).items():
                    _number(value, f"{label}: {name}: {group}.{key}")
            if not all(isinstance(part.get("case"), str) for part in parts):
                raise InputError(f"{label}: {name}: a case has no name")
            known[name] = tuple(parts)
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything one run of bench found.

    Attributes
    ----------
    machine
        See :class:`sccg_bench.machine.Machine`.
    provenance
        ``command``, ``versions``, ``hashes``, ``seed``, ``cases``; ``simulated_data`` is true for the phantom.
    direction
        ``mr2ct`` or ``ct2mr``.
    profile
        ``quick``, ``full`` or ``custom``.
    warnings
        What a reader must know before he trusts a figure, such as a disturbed machine.
    rows
        One per model, cited and missing ones included.
    """

    machine: dict[str, Any]
    provenance: dict[str, Any]
    rows: tuple[Row, ...]
    direction: Direction | None = None
    profile: str | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_simulated(self) -> bool:
        """The slices come from the phantom."""
        return bool(self.provenance.get("simulated_data"))

    def row(self, name: str) -> Row | None:
        """The row of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; NaN and infinities have become None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["rows"] = [row.to_dict() for row in self.rows]
        return cast("dict[str, Any]", finite({"schema": SCHEMA} | values))

    def to_json(self) -> str:
        """JSON text, two spaces deep."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Results:
        """Read results; unknown keys are ignored.

        Raises
        ------
        InputError
            Not JSON, another schema, or a value of the wrong type.
        """
        try:
            values = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise InputError(f"bench results are not JSON: {error}") from None
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise InputError(f"bench results have schema {schema!r}, not {SCHEMA!r}")
        machine, provenance, rows = (values.get(name) for name in ("machine", "provenance", "rows"))
        if not isinstance(machine, dict) or not isinstance(provenance, dict):
            raise InputError("bench results: machine or provenance is not an object")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError("bench results: rows is not a list of objects")
        direction, warnings = values.get("direction"), values.get("warnings") or []
        if direction not in (None, *get_args(Direction)):
            raise InputError(f"bench results: direction {direction!r} is not mr2ct or ct2mr")
        if not isinstance(warnings, list):
            raise InputError("bench results: warnings is not a list")
        return cls(
            machine=machine,
            provenance=provenance,
            rows=tuple(Row.from_dict(row) for row in rows),
            direction=direction,
            profile=None if values.get("profile") is None else str(values["profile"]),
            warnings=tuple(str(line) for line in warnings),
        )


def write_results(path: Path, results: Results) -> None:
    """Write the JSON, whole or not at all."""
    write_text(path, results.to_json())


def read_results(path: Path) -> Results:
    """Read a file of :func:`write_results`.

    Raises
    ------
    InputError
        There is no such file, or it holds something else; the message names the file.
    """
    try:
        return Results.from_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def paper_row() -> Row:
    """The published 2.73 s per image; shown in every table, always as cited."""
    return Row(
        name=PAPER_NAME,
        role="cited",
        status="cited",
        note=PAPER_NOTE,
        engine="torch",
        device="cuda",
        size=PAPER_SIZE,
        latency_ms=Latency(p50=PAPER_MS, p90=None, p99=None, min=None, mean=None, n=None),
    )


def not_measured_row(
    name: str, reason: str, *, engine: str | None = None, device: str | None = "cuda", precision: str | None = None
) -> Row:
    """A row for a device or engine that is not here: the reason instead of figures, never a number from elsewhere."""
    return Row(name=name, status="not measured", note=reason, engine=engine, device=device, precision=precision)


def with_speedups(rows: Sequence[Row], teacher: str | None) -> tuple[Row, ...]:
    """Fill in both speed-ups of the measured rows.

    ``speedup_vs_paper`` only for latency at the paper's 512x512; ``speedup_vs_teacher`` only where the teacher of that
    name, or its row on another device, ran in PyTorch at FP32 on the same device and at the same size.
    """
    bases = {
        (row.device, row.size): row.latency_ms.p50
        for row in rows
        if (row.name == teacher or row.role == "teacher engine")
        and (row.engine, row.precision) == ("torch", "fp32")
        and row.latency_ms is not None
    }
    found = []
    for row in rows:
        if row.latency_ms is None or row.status != "measured":
            found.append(row)
            continue
        paper = PAPER_MS / row.latency_ms.p50 if row.size == PAPER_SIZE else None
        base = bases.get((row.device, row.size))
        ratio = None if base is None else base / row.latency_ms.p50
        found.append(replace(row, speedup_vs_paper=paper, speedup_vs_teacher=ratio))
    return tuple(found)


def finite(value: Any) -> Any:
    """A value made of JSON types, NaN and infinity replaced by None, tuples by lists; NumPy scalars become Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(part) for part in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _latency(values: object, label: str) -> Latency | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise InputError(f"{label} is not an object")
    known = {each.name: values.get(each.name) for each in fields(Latency)}
    for name, value in known.items():
        _number(value, f"{label}.{name}")
    if known["p50"] is None or known["p50"] <= 0:
        raise InputError(f"{label} has no p50")
    return Latency(**cast("dict[str, Any]", known))


def _size(values: object, label: str) -> tuple[int, int] | None:
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) != 2 or not all(isinstance(side, int) for side in values):
        raise InputError(f"{label} is not [rows, columns]")
    return int(values[0]), int(values[1])


def _number(value: object, label: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise InputError(f"{label} is not a number")
