"""``sccg-compress bench-overhead``: what bench's own machinery adds to an engine's latency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sccg_compress.console import result, say, write_json
from sccg_runtime.errors import InputError, SccgError

WANTED = 0.02
"""Share of the bare p50 that bench may differ by."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians in ms of one engine, called barely and by bench; ``overhead`` is bench / bare - 1."""

    bundle: str
    size: tuple[int, int]
    threads: int
    rounds: int
    queries: int
    bare_p50_ms: float
    bench_p50_ms: float
    overhead: float
    within: bool
    busy_warning: str | None


def measure_overhead(
    bundle: Path, *, size: tuple[int, int], threads: int | None, rounds: int, queries: int, json_out: str | None
) -> Overhead:
    """Measure both in turns, in fresh processes, and print the medians over all rounds.

    Parameters
    ----------
    bundle
        The engine.
    size
        (rows, columns) in pixels.
    threads
        CPU threads; None: physical cores.
    rounds
        How often each of the two is measured; which goes first alternates.
    queries
        Counted queries per round and kind.

    Raises
    ------
    InputError
        The bundle cannot be read or run at this size.
    """
    from sccg_bench.machine import LoadWatch
    from sccg_runtime.bundle import read_bundle
    from sccg_runtime.engine import physical_cores

    stride = read_bundle(bundle).contract.stride
    if any(side % stride for side in size):
        raise InputError(f"--size {size[0]}x{size[1]}: both sides must be multiples of {stride} for {bundle.name}")
    used = threads or physical_cores()
    times: dict[str, list[float]] = {"bare": [], "bench": []}
    watch = LoadWatch(lambda: [])  # children that have ended count as this process's own
    for number in range(rounds):
        for kind in ("bare", "bench") if number % 2 == 0 else ("bench", "bare"):
            say(f"round {number + 1} of {rounds}: {kind}")
            times[kind] += (_bare if kind == "bare" else _bench)(bundle, size, used, queries)
    bare, bench = (float(np.median(times[kind])) for kind in ("bare", "bench"))
    found = Overhead(
        bundle.name, size, used, rounds, queries, bare, bench, bench / bare - 1, abs(bench / bare - 1) <= WANTED,
        watch.warning(),
    )  # fmt: skip
    write_json(json_out, asdict(found))
    if json_out != "-":
        result(f"bare engine loop p50 {bare:.4g} ms, bench p50 {bench:.4g} ms at {size[0]}x{size[1]}, {used} threads")
        verdict = "within" if found.within else "NOT within"
        result(f"bench adds {found.overhead:+.1%}: {verdict} the {WANTED:.0%} wanted")
    if found.busy_warning:
        say(f"warning: {found.busy_warning}")
    return found


def _bare(bundle: Path, size: tuple[int, int], threads: int, queries: int) -> list[float]:
    from sccg_bench.worker import THREAD_VARIABLES

    command = [sys.executable, "-P", "-m", "sccg_compress.bare_loop", str(bundle), *map(str, (*size, threads, queries))]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{bundle.name}: the bare loop failed: {last[:200]}")
    return [float(each) for each in json.loads(done.stdout)]


def _bench(bundle: Path, size: tuple[int, int], threads: int, queries: int) -> list[float]:
    from sccg_bench.latency import LatencyPlan
    from sccg_bench.worker import Worker
    from sccg_export.runnables import BundleRunnable

    plan = LatencyPlan(queries=queries, seconds=0)
    times: list[float] = []
    try:
        with Worker(BundleRunnable(bundle.stem, bundle), threads) as worker:
            worker.open(size)
            worker.warm_up(plan)
            while len(times) < queries:
                times += worker.block(plan)
    except SccgError as error:
        raise InputError(f"{bundle.name}: {error}") from None
    return times[:queries]
