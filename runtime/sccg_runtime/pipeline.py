"""Stages that overlap, with a bounded number of items between them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import TypeVar

AHEAD = 4
T = TypeVar("T")
R = TypeVar("R")
_noted: deque[Callable[[], object]] = deque()  # signals that wait: what each of them would have done at once


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of ``work`` in the order of ``items``; at most ``AHEAD`` more than were asked for are computed."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
                _answer_signals()
        while waiting:
            yield waiting.popleft().result()
            _answer_signals()
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def signals_between_items() -> Iterator[None]:
    """While open, Ctrl-C and SIGTERM wait for the next item of :func:`in_order`, or for the end of the block.

    Raised at any instruction, as Python does it, ``KeyboardInterrupt`` may come while a pool or a future holds its
    lock; the lock then stays taken and the pool waits for it for ever (bpo-29988). A second signal does not wait. Does
    nothing outside the main thread, which alone gets signals, nor for a signal that ends the process at once.
    """
    if not _in_main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        handler = previous[signal.Signals(number)]
        if _noted:
            _noted.clear()
            handler(number, frame)
        else:
            _noted.append(lambda: handler(number, frame))

    for number in previous:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _answer_signals()


def _answer_signals() -> None:
    if _noted and _in_main_thread():
        _noted.popleft()()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def timed(work: Callable[[], R]) -> tuple[R, float]:
    """The result of ``work`` and how long it took, in ms."""
    began = time.perf_counter()
    result = work()
    return result, ms_since(began)


def ms_since(began: float) -> float:
    """Milliseconds since ``began``, a reading of ``time.perf_counter``."""
    return (time.perf_counter() - began) * 1000
