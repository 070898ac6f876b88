"""Stages that overlap, with a bounded number of items between them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import TypeVar

AHEAD = 4
T = TypeVar("T")
R = TypeVar("R")
IMPATIENT_S = 0.5  # a second signal so much later is somebody who asks again; earlier, it is one request sent twice
_signals: _Signals | None = None  # while signals wait


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of ``work`` in the order of ``items``; at most ``AHEAD`` more than were asked for are computed."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
                answer_signals()
        while waiting:
            yield waiting.popleft().result()
            answer_signals()
    finally:
        for future in waiting:
            future.cancel()


class _Signals:
    """Signals that wait, and what each of them would have done at once."""

    def __init__(self) -> None:
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.handlers = {number: handler for number, handler in found.items() if callable(handler)}
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._first: float | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append((number, frame))
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first >= IMPATIENT_S:
            self.answer()

    def answer(self) -> None:
        taken, self._waiting = self._waiting, []
        for number, frame in taken:
            self.handlers[signal.Signals(number)](number, frame)

    def restore(self, numbers: Sequence[signal.Signals]) -> None:
        if numbers:
            try:
                signal.signal(numbers[0], self.handlers[numbers[0]])
            finally:  # the handler that has just come back may raise
                self.restore(numbers[1:])


@contextlib.contextmanager
def signals_between_items() -> Iterator[None]:
    """While open, Ctrl-C and SIGTERM wait for :func:`answer_signals`, which :func:`in_order` calls behind every item.

    Raised at any instruction, as Python does it, ``KeyboardInterrupt`` may come while a pool or a future holds its
    lock; the lock then stays taken and the pool waits for it for ever (bpo-29988). The end of the block answers, too,
    and who asks again half a second later is answered at once. Does nothing within another such block, outside the
    main thread, which alone gets signals, and for signals that end the process at once.
    """
    global _signals  # signals are the process's own
    if _signals is not None or not _in_main_thread():
        yield
        return
    mine = _Signals()
    try:
        _signals = mine
        for number in mine.handlers:
            signal.signal(number, mine.note)
        yield
    finally:
        try:
            mine.restore(list(mine.handlers))
        finally:
            _signals = None
            mine.answer()


def answer_signals() -> None:
    """Let the signals that wait do now what they would have done: usually, raise ``KeyboardInterrupt``."""
    if _signals is not None and _in_main_thread():
        _signals.answer()


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
