"""Slices on disk are the slices that were given; files stay few and nothing is left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sccg_bench.on_disk import on_disk
from sccg_runtime.intensity import FloatArray


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def slices(count: int) -> Iterator[FloatArray]:
    rng = np.random.default_rng(0)
    for index in range(count):
        yield rng.uniform(-1, 1, (1, 3 + index % 4, 5)).astype(np.float32)[:, ::-1]


def test_they_are_what_was_given_and_cannot_be_changed(folder: Path) -> None:
    found = on_disk(slices(9))
    for one, given in zip(found, slices(9), strict=True):
        assert (type(one), one.dtype, one.flags.writeable) == (np.ndarray, np.float32, False)
        np.testing.assert_array_equal(one, given)
    assert list(folder.iterdir()) == [], "the file has no name"
    assert on_disk(iter(())) == []


def test_many_slices_are_one_open_file_until_the_last_is_gone(folder: Path) -> None:
    files = Path("/dev/fd")
    if not files.is_dir():
        pytest.skip("this system does not list open files")
    gc.collect()
    before = len(list(files.iterdir()))
    found = on_disk(slices(300))
    assert len(list(files.iterdir())) == before + 1
    del found
    assert len(list(files.iterdir())) == before


def test_nothing_is_left_after_an_interrupt(folder: Path) -> None:
    def interrupted() -> Iterator[FloatArray]:
        yield from slices(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_disk(interrupted())
    assert list(folder.iterdir()) == []
