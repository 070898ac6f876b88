"""A process that is killed at any moment leaves the whole series or none."""

import os
import random
import subprocess
import sys
import time

import pytest
from pydicom import dcmread

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
SLICES, KILLS = 12, 8


def state(folder):
    """SOP instance UIDs of a whole series, or None where there is no folder; fails on half a series."""
    if not folder.exists():
        return None
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"{index:04d}.dcm" for index in range(1, SLICES + 1)]
    read = [dcmread(path) for path in paths]
    assert all(len(item.PixelData) == 64 * 64 * 2 for item in read)
    assert len({item.SeriesInstanceUID for item in read}) == 1
    return [item.SOPInstanceUID for item in read]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_any_time_leaves_no_half_series(bundle_file, series, tmp_path, force):
    source, bundle, where = series(slices=SLICES), bundle_file(), tmp_path / "results"
    out = where / "out"
    command = [sys.executable, "-m", "sccg_runtime", "convert", source, out, "--bundle", bundle]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.perf_counter() - began
    before = state(out)
    chance, killed, left_whole = random.Random(11), 0, 0  # noqa: S311
    for _ in range(KILLS):
        if not force and out.exists():
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        began = time.perf_counter()
        with subprocess.Popen([*command, *(["--force"] if force else [])], stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(chance.uniform(0.5, 1.05) * whole_s)  # the first half is spent on imports
                whole_s = time.perf_counter() - began  # the machine has become faster
            except subprocess.TimeoutExpired:
                process.kill()
        killed += process.returncode == -9
        after = state(out)
        left_whole += after is not None
        if force:
            if after is None:  # killed between two renames: the former series lies aside, whole
                asides = [path / "out" for path in where.glob(".out-*.previous")]
                assert before in [state(path) for path in asides if len(list(path.glob("*"))) == SLICES]
            before = after or before
    assert killed > 0
    assert {item.name.startswith((".out-", "out")) for item in where.iterdir()} <= {True}
    subprocess.run([*command, "--force"], check=True, capture_output=True)
    assert len(state(out)) == SLICES
