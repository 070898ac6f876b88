"""A table as text, and how its cells are written: figures, times, sizes, devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sccg_bench.checks import Outcome
from sccg_bench.latency import Latency
from sccg_bench.metrics import CAP_DB
from sccg_bench.results import Row

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


def number(value: Any, digits: int, signed: bool = False) -> str:
    """A figure with so many decimals, or a dash where there is none."""
    if value is None:
        return NOTHING
    rounded = round(value, digits) + 0.0  # no negative zero
    text = f"{rounded:+.{digits}f}" if signed else f"{rounded:.{digits}f}"
    return text.replace("-", "−")


def mean_figure(row: Row, group: str, name: str, digits: int, signed: bool = False) -> str:
    """A row's figure, a mean over slices; behind ``≥`` where some slice's was cut off at 100 dB."""
    value = row.figure(group, name)
    if value is None or "psnr" not in name or "delta" in name:
        return number(value, digits, signed)
    cut = value >= CAP_DB or any((part.get(group) or {}).get(name) == CAP_DB for part in row.per_slice)
    if value >= CAP_DB:
        return f"≥{CAP_DB:g}"
    return f"≥{number(math.floor(value * 10**digits) / 10**digits, digits)}" if cut else number(value, digits, signed)


def judged(outcome: Outcome) -> str:
    """The value of an outcome with three decimals, or as many more as keep it on its side of the limit."""
    value = outcome.value
    kept = (count for count in range(3, 12) if value is None or outcome.limit.met(round(value, count)) == outcome.met)
    return number(value, next(kept, 12))


def milliseconds(latency: Latency | None, name: str) -> str:
    """One figure of a latency in ms, see :func:`digits_of_time`."""
    return digits_of_time(getattr(latency, name, None))


def digits_of_time(value_ms: float | None) -> str:
    """Three significant digits."""
    return NOTHING if value_ms is None else f"{value_ms:.{2 if value_ms < 10 else 1 if value_ms < 100 else 0}f}"


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
