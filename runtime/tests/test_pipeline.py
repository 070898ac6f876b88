import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sccg_runtime.pipeline import AHEAD, in_order, signals_between_items, timed


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


def test_a_signal_without_an_item_to_come_is_answered_at_the_end_and_a_second_one_at_once():
    reached = []

    @signals_between_items()
    def interrupted(times):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            reached.append(times)

    for times in (1, 2, 0):
        with pytest.raises(KeyboardInterrupt) if times else contextlib.nullcontext():
            interrupted(times)
    assert reached == [1, 2]


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
