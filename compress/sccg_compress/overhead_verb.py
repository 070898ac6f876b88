"""``bench-overhead``: what bench's own machinery adds to an engine's latency."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sccg_compress.console import result, say, write_json
from sccg_compress.verb_options import JsonOption, parse_size
from sccg_runtime.errors import InputError, SccgError

WANTED = 0.02
"""Share of the bare p50 that bench may differ by."""


def bench_overhead(
    bundle: Annotated[Path, typer.Argument(help="Bundle whose engine is called.")],
    size: Annotated[str, typer.Option(help="Size of the slices.")] = "512x512",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: physical cores.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each of the two.")] = 4,
    queries: Annotated[int, typer.Option(min=1, help="Counted queries per turn.")] = 200,
    json_out: JsonOption = None,
) -> None:
    """Median of a bare engine loop against bench's: what measuring itself adds (2 % at most is wanted)."""
    from sccg_bench.machine import LoadWatch
    from sccg_runtime.bundle import read_bundle
    from sccg_runtime.engine import physical_cores

    rows, columns = sides = parse_size(size)
    stride = read_bundle(bundle).contract.stride
    if rows % stride or columns % stride:
        raise InputError(f"--size {rows}x{columns}: both sides must be multiples of {stride} for {bundle.name}")
    used = threads or physical_cores()
    times: dict[str, list[float]] = {"bare": [], "bench": []}
    watch = LoadWatch(lambda: [])  # children that have ended count as this process's own
    for number in range(rounds):
        for kind in ("bare", "bench") if number % 2 == 0 else ("bench", "bare"):
            say(f"round {number + 1} of {rounds}: {kind}")
            times[kind] += (_bare if kind == "bare" else _bench)(bundle, sides, used, queries)
    bare, bench = (statistics.median(times[kind]) for kind in ("bare", "bench"))
    overhead, busy = bench / bare - 1, watch.warning()
    found: dict[str, Any] = {
        "bundle": bundle.name,
        "size": sides,
        "threads": used,
        "rounds": rounds,
        "queries": queries,
        "bare_p50_ms": bare,
        "bench_p50_ms": bench,
        "overhead": overhead,
        "within": abs(overhead) <= WANTED,
        "busy_warning": busy,
    }
    write_json(json_out, found)
    if json_out != "-":
        result(f"bare engine loop p50 {bare:.4g} ms, bench p50 {bench:.4g} ms at {rows}x{columns}, {used} threads")
        verdict = "within" if found["within"] else "NOT within"
        result(f"bench adds {overhead:+.1%}: {verdict} the {WANTED:.0%} wanted")
    if busy:
        say(f"warning: {busy}")


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
