import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sccg_runtime.pipeline import AHEAD, in_order, timed


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


def test_time_is_in_milliseconds():
    result, elapsed_ms = timed(lambda: time.sleep(0.02) or "done")
    assert result == "done"
    assert 15 < elapsed_ms < 2000
