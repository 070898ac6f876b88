"""What conversions leave that fail or are stopped: the previous result, or nothing."""

import signal
from pathlib import Path

import pytest

from sccg_runtime import convert as convert_module
from sccg_runtime.errors import InputError, RefusedError, SeriesError


def test_a_slice_that_fails_is_named_and_nothing_is_left(run, series, tmp_path):
    with pytest.raises(RefusedError, match=r"slice 1 \(IM005\.dcm\).*not finite"):
        run(series(), kind="nan")
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith((".out", "out"))] == []


@pytest.mark.parametrize("direction", ["mr2ct", "ct2mr"])
def test_a_bad_file_in_the_middle_leaves_nothing(run, series, tmp_path, make, direction):
    source = series("MR" if direction == "mr2ct" else "CT")
    path = source / "IM002.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeriesError, match=r"IM002\.dcm"):
        run(source, make.contract() if direction == "mr2ct" else make.ct2mr())
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith((".out", "out"))] == []


def test_an_interrupt_leaves_nothing(run, series, tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(series(), progress=interrupt)
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith((".out", "out"))] == []


def test_a_signal_at_the_last_slice_still_stops_the_output(run, series, tmp_path, monkeypatch):
    write, written = convert_module.write_file, []

    def interrupted(path, dataset):
        write(path, dataset)
        written.append(path.name)
        if len(written) == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(convert_module, "write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(series(slices=6))
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith((".out", "out"))] == []


def test_a_signal_while_the_output_is_put_in_place_is_told_as_too_late(run, series, tmp_path, monkeypatch):
    rename = Path.rename

    def interrupted(path, target):
        signal.raise_signal(signal.SIGINT)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the output is complete"):
        run(series(slices=6))
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_a_full_disk_is_one_line_and_leaves_nothing(run, series, tmp_path, monkeypatch):
    def full(path, dataset):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(convert_module, "write_file", full)
    with pytest.raises(InputError, match=r"^out cannot be written: No space left on device$"):
        run(series())
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith((".out", "out"))] == []
