"""``sccg-compress bench-overhead``: both loops call one engine, and the comparison is arithmetic on what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli

from sccg_compress import overhead_verb


def test_both_are_measured_in_alternating_turns_and_compared(
    run: Cli, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def loop(kind: str, ms: float):  # type: ignore[no-untyped-def]
        def measure(bundle: Path, size: tuple[int, int], threads: int, queries: int) -> list[float]:
            order.append(kind)
            assert (bundle.name, size, threads, queries) == ("small.sccg", (64, 64), 1, 3)
            return [ms, ms, ms * 100]

        return measure

    monkeypatch.setattr(overhead_verb, "_bare", loop("bare", 2.0))
    monkeypatch.setattr(overhead_verb, "_bench", loop("bench", 2.1))
    command = ("bench-overhead", bundles / "small.sccg", "--size", 64, "--threads", 1, "--rounds", 2, "--queries", 3)
    said = run(*command)
    assert said.code == 0, said
    assert order == ["bare", "bench", "bench", "bare"]
    assert "bare engine loop p50 2 ms, bench p50 2.1 ms" in said.out
    assert "bench adds +5.0%: NOT within the 2% wanted" in said.out
    told = json.loads(run(*command, "--json", "-").out)
    assert told["overhead"] == pytest.approx(0.05)
    assert told["within"] is False


@pytest.mark.slow
def test_the_real_loops_give_as_many_times_as_were_asked_for(bundles: Path) -> None:
    bundle = bundles / "small.sccg"
    for loop in (overhead_verb._bare, overhead_verb._bench):
        times = loop(bundle, (64, 64), 1, 5)
        assert len(times) == 5
        assert all(0 < each < 10_000 for each in times)


def test_what_cannot_be_measured_is_one_line(run: Cli, bundles: Path, tmp_path: Path) -> None:
    run("bench-overhead", bundles / "small.sccg", "--size", 50).refused("multiples of")
    run("bench-overhead", tmp_path / "no.sccg").refused("no.sccg")


def test_the_profile_is_checked_before_anything_is_measured(run: Cli) -> None:
    run("bench", "--profile", "slow").refused("'slow' is none of quick, full")
    run("bench", "--profile", "quick", "--full").refused("exclude each other")
