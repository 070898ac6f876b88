import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sccg_runtime.pipeline import AHEAD, IMPATIENT_S, answer_signals, in_order, signals_between_items, timed


def test_results_keep_their_order_whatever_takes_longest():
    def work(item):
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, work, range(20))) == [item * item for item in range(20)]


def test_no_more_than_a_few_items_are_computed_ahead():
    started, lock = [], threading.Lock()

    def work(item):
        with lock:
            started.append(item)
        return item

    with ThreadPoolExecutor(4) as pool:
        for item in in_order(pool, work, range(50)):
            time.sleep(0.001)
            assert len(started) <= item + 1 + AHEAD + 1


def test_an_error_comes_out_at_its_place_and_stops_the_rest():
    started = []

    def work(item):
        started.append(item)
        return 1 // (item - 3)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(in_order(pool, work, range(50)))
    assert len(started) < 15


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_that_comes_while_a_future_is_locked_does_not_hang_the_pool():
    """Python raises right after a lock was taken, before the lock knows that it must be given back."""
    code = """
import signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from sccg_runtime.pipeline import in_order, signals_between_items
enter, given = threading.Condition.__enter__, []
def locked_then_interrupted(self):
    result = enter(self)
    if len(given) == 2 and threading.current_thread() is threading.main_thread():
        given.append(None)
        signal.raise_signal(signal.SIGINT)
    return result
threading.Condition.__enter__ = locked_then_interrupted
try:
    with signals_between_items(), ThreadPoolExecutor(2) as pool:
        for item in in_order(pool, lambda item: time.sleep(0.05) or item, range(1000)):
            given.append(item)
except KeyboardInterrupt:
    print("interrupted after", given)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "interrupted after [0, 1, None, 2]"


def test_a_signal_waits_for_the_next_item_and_the_handlers_come_back():
    before, given = signal.getsignal(signal.SIGINT), []

    @signals_between_items()
    def interrupted_at_7():
        with ThreadPoolExecutor(2) as pool:
            for item in in_order(pool, abs, range(20)):
                given.append(item)
                if item == 7:
                    signal.raise_signal(signal.SIGINT)
                    given.append("still here")

    with pytest.raises(KeyboardInterrupt):
        interrupted_at_7()
    assert given == [*range(8), "still here"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("apart_s", "times", "reached"),
    [(0.0, 0, 0), (0.0, 1, 1), (0.0, 2, 2), (2 * IMPATIENT_S, 2, 1)],
    ids=["none", "one waits", "one sent twice waits", "who asks again does not wait"],
)
def test_signals_without_an_item_to_come_are_answered_at_the_end(apart_s, times, reached, monkeypatch):
    clock = itertools.count(0.0, apart_s or 1e-3)
    monkeypatch.setattr("sccg_runtime.pipeline.time.monotonic", lambda: next(clock))
    passed = []

    @signals_between_items()
    def interrupted():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            passed.append(times)

    with pytest.raises(KeyboardInterrupt) if times else contextlib.nullcontext():
        interrupted()
    assert len(passed) == reached
    with signals_between_items():
        answer_signals()  # nothing is left of them


def test_handlers_that_do_not_raise_are_all_called_and_come_back():
    called, before = [], {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, _: called.append(number))
    try:
        mine = {number: signal.getsignal(number) for number in before}
        with signals_between_items(), signals_between_items():
            for number in before:
                signal.raise_signal(number)
            assert called == []
            answer_signals()
            assert called == [signal.SIGINT, signal.SIGTERM]
        assert called == [signal.SIGINT, signal.SIGTERM]
        assert {number: signal.getsignal(number) for number in before} == mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_while_the_handlers_come_back_leaves_nothing_behind(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    put_back, set_handler = [], signal.signal

    def interrupted(number, handler):
        result = set_handler(number, handler)
        if handler is before[number] and not put_back:
            put_back.append(number)
            signal.raise_signal(signal.SIGINT)
        return result

    signal.signal(signal.SIGTERM, wanted := lambda *_: None)
    before[signal.SIGTERM] = wanted
    try:
        monkeypatch.setattr(signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), signals_between_items():
            pass
        assert {number: signal.getsignal(number) for number in before} == before
        answer_signals()
    finally:
        set_handler(signal.SIGTERM, signal.SIG_DFL)


def test_outside_the_main_thread_signals_are_left_as_they_are():
    seen = []

    def work():
        with signals_between_items():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_time_is_in_milliseconds():
    result, elapsed_ms = timed(lambda: time.sleep(0.02) or "done")
    assert result == "done"
    assert 15 < elapsed_ms < 2000
