"""Counting, dropping and turns, with a clock that is not the machine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_bench.latency import (
    PROFILES,
    Latency,
    LatencyPlan,
    plan_of,
    summarise_blocks,
    take_turns,
    time_block,
    warm_up,
)
from sccg_runtime.errors import InputError

QUICK = PROFILES["quick"]


class Clock:
    """Time passes only while a query runs: each takes the next of ``times_ms``, the last for ever."""

    def __init__(self, *times_ms: float) -> None:
        self.now_ns, self.queries = 0, 0
        self._times: Iterator[float] = iter(times_ms)
        self._last = times_ms[-1]

    def __call__(self) -> int:
        return self.now_ns

    def query(self) -> None:
        self.queries += 1
        self.now_ns += round(next(self._times, self._last) * 1e6)


@pytest.mark.parametrize(
    ("times_ms", "slow", "queries"),
    [
        ((200, 100), False, 10),  # ten queries take longer than a second
        ((10,), False, 100),  # a second takes more than ten queries
        ((3000, 260), True, 2),
        ((3000, 240), False, 10),  # only the first was slow
    ],
)
def test_warm_up_is_ten_queries_and_a_second_or_two_slow_queries(
    times_ms: tuple[float, ...], slow: bool, queries: int
) -> None:
    clock = Clock(*times_ms)
    assert warm_up(clock.query, QUICK, clock) is slow
    assert clock.queries == queries


def test_a_block_lasts_half_a_second_and_drops_its_first_fast_query() -> None:
    clock = Clock(90, 10)
    times = time_block(clock.query, QUICK, clock)
    assert times == [10.0] * 41
    assert clock.queries == 42


def test_a_block_of_slow_queries_keeps_its_first() -> None:
    clock = Clock(100, 10)
    assert time_block(clock.query, QUICK, clock)[:2] == [100.0, 10.0]
    clock = Clock(1800)
    assert time_block(clock.query, QUICK, clock) == [1800.0]


def blocks_of(times: dict[str, list[float]], log: list[str]) -> dict[str, Callable[[], Sequence[float] | None]]:
    def make(name: str) -> Callable[[], Sequence[float] | None]:
        def block() -> Sequence[float]:
            log.append(name)
            return times[name]

        return block

    return {name: make(name) for name in times}


def test_models_take_turns_until_each_has_enough() -> None:
    log: list[str] = []
    blocks = blocks_of({"fast": [5.0] * 100, "middle": [50.0] * 10, "slow": [1800.0]}, log)
    found = take_turns(blocks, {"slow": True}, QUICK)
    assert log[:6] == ["fast", "middle", "slow"] * 2
    assert found["fast"].n == 600  # 3 s of counted time
    assert found["middle"].n == 70  # 64 queries, which take longer than 3 s
    assert found["slow"].n == 10


def test_a_model_that_fails_in_its_turn_is_out_and_the_others_go_on() -> None:
    blocks = blocks_of({"good": [10.0] * 50}, [])
    blocks["bad"] = lambda: None
    assert list(take_turns(blocks, {}, QUICK)) == ["good"]


def test_full_profile_asks_for_1024_queries_and_ten_minutes() -> None:
    full = PROFILES["full"]
    assert not full.is_done([500.0] * 1023, slow=False)
    assert not full.is_done([1.0] * 5000, slow=False)
    assert full.is_done([600.0] * 1024, slow=False)
    assert full.is_done([1800.0] * 10, slow=True)


def test_one_disturbed_query_of_the_warm_up_excuses_no_fast_model() -> None:
    quick = PROFILES["quick"]
    assert not quick.is_done([84.0] * 11, slow=True)
    assert not quick.is_done([84.0] * 10 + [900.0], slow=True)
    assert quick.is_done([84.0] * 64, slow=True)


@pytest.mark.parametrize(("queries", "given_"), [(661, False), (662, True)])
def test_p99_is_withheld_below_662_queries(queries: int, given_: bool) -> None:
    assert (summarise_blocks([[1.0] * queries]).p99 is not None) is given_


@given(st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30), min_size=1, max_size=10))
def test_summary_agrees_with_numpy(blocks: list[list[float]]) -> None:
    found, values = summarise_blocks(blocks), np.concatenate(blocks)
    assert found.p50 == pytest.approx(np.median(values))
    assert found.p90 == pytest.approx(np.quantile(values, 0.9))
    assert found.mean == pytest.approx(values.mean())
    assert (found.min, found.n, found.blocks) == (values.min(), values.size, len(blocks))
    assert found.min <= found.p50 <= found.p90


def test_spread_is_the_drift_of_the_block_medians() -> None:
    assert summarise_blocks([[10.0] * 9] * 5).spread == 0
    found = summarise_blocks([[10.0], [20.0]] * 5)
    assert found.spread == pytest.approx((found.block_p50_high - found.block_p50_low) / 15)
    assert summarise_blocks([[10.0]]).spread is None
    assert Latency(2730, None, None, None, None, None).spread is None


def test_no_query_and_no_such_profile_are_refused() -> None:
    with pytest.raises(InputError, match="no query"):
        summarise_blocks([[], []])
    with pytest.raises(InputError, match="quick, full"):
        plan_of("fast")  # type: ignore[arg-type]
    assert plan_of(LatencyPlan(1, 0)) == LatencyPlan(1, 0)
