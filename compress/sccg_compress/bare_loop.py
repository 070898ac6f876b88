"""A bundle's engine in the barest loop there is: a process of its own, one call, two readings of the clock.

Run as ``python -m sccg_compress.bare_loop BUNDLE ROWS COLUMNS THREADS QUERIES``; prints the times in ms as JSON.
What bench measures is held against this (:mod:`sccg_compress.overhead_verb`), so nothing of bench is used here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

WARM_UP_QUERIES = 10
WARM_UP_S = 1.0


def bare_times(bundle: Path, size: tuple[int, int], threads: int, queries: int) -> list[float]:
    """Times of ``queries`` calls of the engine itself in ms, after 10 calls and 1 s of warm-up."""
    from sccg_runtime.bundle import read_bundle
    from sccg_runtime.engine import open_session

    call = open_session(read_bundle(bundle), size=size, threads=threads).run
    given = np.random.default_rng(0).uniform(-1, 1, (1, 1, *size)).astype(np.float32)
    started = time.perf_counter()
    count = 0
    while count < WARM_UP_QUERIES or time.perf_counter() - started < WARM_UP_S:
        call(given)
        count += 1
    times = []
    for _ in range(queries):
        before = time.perf_counter_ns()
        call(given)
        times.append((time.perf_counter_ns() - before) / 1e6)
    return times


def main() -> None:
    """Read the arguments, print the times."""
    bundle, *numbers = sys.argv[1:]
    rows, columns, threads, queries = map(int, numbers)
    sys.stdout.write(json.dumps(bare_times(Path(bundle), (rows, columns), threads, queries)) + "\n")


if __name__ == "__main__":
    main()
