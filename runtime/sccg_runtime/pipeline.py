"""Stages that overlap, with a bounded number of items between them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 4
T = TypeVar("T")
R = TypeVar("R")


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of ``work`` in the order of ``items``; at most ``AHEAD`` more than were asked for are computed."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def timed(work: Callable[[], R]) -> tuple[R, float]:
    """The result of ``work`` and how long it took, in ms."""
    began = time.perf_counter()
    result = work()
    return result, ms_since(began)


def ms_since(began: float) -> float:
    """Milliseconds since ``began``, a reading of ``time.perf_counter``."""
    return (time.perf_counter() - began) * 1000
