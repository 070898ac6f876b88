"""Slices on disk are the slices that were given; files stay few and nothing is left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_fakes as fakes
import numpy as np
import pytest
from bench_fakes import options

from sccg_bench.on_disk import on_disk
from sccg_bench.protocols import Pair
from sccg_bench.run import run_bench
from sccg_bench.worker import Worker
from sccg_runtime.errors import InputError
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


def test_outputs_of_all_models_lie_on_disk_whatever_the_sizes(living: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Worker.run
    monkeypatch.setattr(Worker, "run", lambda worker, image: living.watch(run(worker, image)))
    sizes = (48, 64, 48, 32, 64, 48)
    slices = [
        Pair("case", f"{index}", image, image)
        for index, size in enumerate(sizes)
        for image in [fakes.head(size, index)]
    ]
    models = [fakes.Fake(f"m{number}", shift=number / 10) for number in range(3)]
    found = run_bench(models, slices, options(teacher_name="m0"))
    assert living.seen == 18
    assert living.most <= 2
    for number, model in enumerate(models):
        for pair, output in zip(slices, found.outputs[model.name], strict=True):
            np.testing.assert_array_equal(output, np.clip(pair.mr + np.float32(number / 10), -1, 1))


def test_too_little_room_for_the_outputs_is_told_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**15))
    steps: list[str] = []
    with pytest.raises(InputError, match="TMPDIR"):
        run_bench([fakes.Fake("m")], fakes.pairs(1, 1, 128), options(), progress=steps.append)
    assert steps == []
