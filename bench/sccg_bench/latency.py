"""How latency is measured: warm-up, turns in blocks, percentiles. Everything here works on callables and a clock.

Source: METRICS "Latency"; single-stream rules after MLPerf Inference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sccg_runtime.errors import InputError

Profile = Literal["quick", "full"]
Clock = Callable[[], int]
"""Nanoseconds, monotonic."""
UNSTEADY = 0.2
"""Spread between turns, as a share of p50, from which on a row is warned about."""
P99_QUERIES = 662
"""Fewest queries that a 99th percentile may be taken from."""


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """How often and how long.

    Attributes
    ----------
    queries, seconds
        Both must be reached by the counted queries of one model.
    warmup_queries, warmup_seconds
        Both must be reached before anything counts.
    slow_ms, slow_queries, slow_warmup_queries
        A model slower than ``slow_ms`` needs only these.
    block_seconds
        Length of one turn; at least one query.
    drop_first_below_ms
        The first query of a block is dropped when it takes less than this: it finds cold caches.
    throughput_seconds
        How long all streams are kept busy at once.
    series_repeats
        How often a whole DICOM series is converted, each time in a fresh process.
    """

    queries: int
    seconds: float
    warmup_queries: int = 10
    warmup_seconds: float = 1.0
    slow_ms: float = 250.0
    slow_queries: int = 10
    slow_warmup_queries: int = 2
    block_seconds: float = 0.5
    drop_first_below_ms: float = 100.0
    throughput_seconds: float = 3.0
    series_repeats: int = 3

    def is_done(self, counted_ms: Sequence[float], slow: bool) -> bool:
        """Whether a model has been asked often enough.

        ``slow`` is what :func:`warm_up` found; one disturbed query there excuses no model whose median is fast.
        """
        if slow and len(counted_ms) >= self.slow_queries and np.median(counted_ms) > self.slow_ms:
            return True
        return len(counted_ms) >= self.queries and sum(counted_ms) >= self.seconds * 1000


PROFILES: dict[Profile, LatencyPlan] = {
    "quick": LatencyPlan(queries=64, seconds=3.0),
    "full": LatencyPlan(queries=1024, seconds=600.0, throughput_seconds=60.0, series_repeats=10),
}


def parse_profile(text: str) -> Profile:
    """The profile of that name.

    Raises
    ------
    InputError
        There is no such profile.
    """
    for profile in PROFILES:
        if text == profile:
            return profile
    raise InputError(f"profile {text!r} is none of {', '.join(PROFILES)}")


def plan_of(profile: Profile | LatencyPlan) -> LatencyPlan:
    """The plan of a profile's name; a plan is given back as it is.

    Raises
    ------
    InputError
        There is no such profile.
    """
    if isinstance(profile, LatencyPlan):
        return profile
    return PROFILES[parse_profile(profile)]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one model in ms.

    Attributes
    ----------
    p50, p90, p99
        Percentiles, linear between neighbours; ``p99`` is None below 662 queries.
    min, mean
        Over the same queries.
    n
        Counted queries.
    blocks
        Turns that they came from. A cited latency has its p50 only.
    block_p50_low, block_p50_high
        10th and 90th percentile of the blocks' medians: how far the machine itself drifted.
    """

    p50: float
    p90: float | None
    p99: float | None
    min: float | None
    mean: float | None
    n: int | None
    blocks: int | None = None
    block_p50_low: float | None = None
    block_p50_high: float | None = None

    @property
    def spread(self) -> float | None:
        """Width of the blocks' medians as a share of p50; None for a single block."""
        if (
            self.blocks is None
            or self.blocks < 2
            or self.block_p50_low is None
            or self.block_p50_high is None
            or self.p50 <= 0
        ):
            return None
        return (self.block_p50_high - self.block_p50_low) / self.p50

    @property
    def is_unsteady(self) -> bool:
        """The medians of the blocks lie too far apart to trust their common median."""
        return self.spread is not None and self.spread > UNSTEADY

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def summarise_blocks(blocks: Sequence[Sequence[float]]) -> Latency:
    """Percentiles over all counted queries of all blocks, in ms.

    Raises
    ------
    InputError
        There is no query.
    """
    filled = [block for block in blocks if len(block)]
    if not filled:
        raise InputError("latency: no query was counted")
    values = np.concatenate([np.asarray(block, np.float64) for block in filled])
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    low, high = (float(value) for value in np.percentile([np.median(block) for block in filled], (10, 90)))
    return Latency(
        p50=p50,
        p90=p90,
        p99=p99 if values.size >= P99_QUERIES else None,
        min=float(values.min()),
        mean=float(values.mean()),
        n=int(values.size),
        blocks=len(filled),
        block_p50_low=low,
        block_p50_high=high,
    )


def warm_up(query: Callable[[], object], plan: LatencyPlan, clock: Clock = time.perf_counter_ns) -> bool:
    """Run uncounted queries; return whether the model is slow.

    The second query decides: the first pays for late initialisation.
    """
    started = clock()
    count = 0
    while True:
        before = clock()
        query()
        after = clock()
        count += 1
        if count == plan.slow_warmup_queries and (after - before) / 1e6 > plan.slow_ms:
            return True
        if count >= plan.warmup_queries and (after - started) / 1e9 >= plan.warmup_seconds:
            return False


def time_block(query: Callable[[], object], plan: LatencyPlan, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Run one turn and return its counted queries in ms: at least one, and for at least ``block_seconds``.

    Parameters
    ----------
    query
        Copies one slice in, runs the model, waits for the device and copies the result out.
    """
    times: list[float] = []
    started = clock()
    while True:
        before = clock()
        query()
        after = clock()
        times.append((after - before) / 1e6)
        if (after - started) / 1e9 >= plan.block_seconds:
            break
    return times[1:] if len(times) > 1 and times[0] < plan.drop_first_below_ms else times


def take_turns(
    blocks: Mapping[str, Callable[[], Sequence[float] | None]], slow: Mapping[str, bool], plan: LatencyPlan
) -> dict[str, Latency]:
    """Let models take turns, block by block, until each has been asked often enough.

    Parameters
    ----------
    blocks
        Name -> function that runs one block and gives its times in ms, or None if the model failed: it is then out.
    slow
        Name -> what :func:`warm_up` found.

    Returns
    -------
    dict
        Name -> latency, of the models that did not fail.
    """
    counted: dict[str, list[Sequence[float]]] = {name: [] for name in blocks}
    total: dict[str, list[float]] = {name: [] for name in blocks}
    waiting = list(blocks)
    while waiting:
        for name in tuple(waiting):
            times = blocks[name]()
            if times is None:
                waiting.remove(name)
                del counted[name]
                continue
            counted[name].append(times)
            total[name].extend(times)
            if plan.is_done(total[name], slow.get(name, False)):
                waiting.remove(name)
    return {name: summarise_blocks(parts) for name, parts in counted.items()}
