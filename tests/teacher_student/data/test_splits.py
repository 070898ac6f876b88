"""Every split is by case, repeatable, and test cases never train."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.png import PngReader
from sccg_teacher_student.data.settings import assumed_settings
from sccg_teacher_student.data.source import DataSource, open_data
from sccg_teacher_student.data.splits import bench_cases, training_cases

PngCases = Callable[..., Path]


def source_of(count: int) -> DataSource:
    folders = {f"case{i}": Path(f"case{i}") for i in range(count)}
    return DataSource(Path("data"), "png", assumed_settings("png"), {}, folders, PngReader())


def test_bench_takes_test_else_val_else_all(png_cases: PngCases) -> None:
    assert bench_cases(open_data(png_cases("train/a", "val/b", "test/c", root="1"))) == ("c",)
    assert bench_cases(open_data(png_cases("train/a", "val/b", root="2"))) == ("b",)
    whole = open_data(png_cases("a", "b", root="3"))
    assert bench_cases(whole) == ("a", "b")
    only_train = open_data(png_cases("train/a", root="4"))
    with pytest.raises(InputError, match="has train/ but no test/ or val/"):
        bench_cases(only_train)
    assert bench_cases(only_train, "all") == bench_cases(only_train, "train") == ("a",)
    with pytest.raises(InputError, match="no val/"):
        bench_cases(only_train, "val")
    for root in ("2", "3"):
        with pytest.raises(InputError, match="no test/"):
            bench_cases(open_data(png_cases(root=root)), "test")


def test_training_takes_the_folders_that_are_there(png_cases: PngCases) -> None:
    full = open_data(png_cases("train/a", "train/b", "val/c", "test/d", root="1"))
    assert training_cases(full, seed=3) == (("a", "b"), ("c",))
    no_val = open_data(png_cases("train/a", "train/b", "train/c", "test/d", root="2"))
    train, val = training_cases(no_val, seed=3)
    assert sorted((*train, *val)) == ["a", "b", "c"]
    assert len(val) == 1
    with pytest.raises(InputError, match="no train/"):
        training_cases(open_data(png_cases("val/a", root="3")), seed=0)


@given(count=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_split_is_a_partition_and_repeats(count: int, seed: int) -> None:
    source = source_of(count)
    train, val = training_cases(source, seed=seed)
    assert train
    assert val
    assert not set(train) & set(val)
    assert sorted((*train, *val)) == sorted(source.cases)
    assert training_cases(source, seed=seed) == (train, val)


def test_the_seed_matters() -> None:
    assert len({training_cases(source_of(20), seed=seed)[1] for seed in range(5)}) > 1


def test_a_single_case_trains_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert training_cases(source_of(1), seed=0) == (("case0",), ())
    assert "one case only" in caplog.text


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(InputError, match="'dev' is none of train, val, test, all"):
        bench_cases(source_of(3), "dev")
