import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX resource usage")
CODE = """
import resource, sys
from sccg_runtime import convert_series, load
result = convert_series(sys.argv[1], sys.argv[2], load(sys.argv[3]), threads=1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(result.slices, peak / (1024 if sys.platform == "linux" else 1024**2))
"""
GROWTH_MIB = 24  # 900 more slices: headers of a few kB each, and what may be kept of the first pass


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_peak_does_not_grow_with_the_length_of_the_series(make, bundle_file, tmp_path):
    bundle, folders = bundle_file(), {100: tmp_path / "short", 1000: tmp_path / "long"}
    stored = np.rint(make.head(64, 64) * 1000).astype(np.uint16)
    for folder in folders.values():
        folder.mkdir()
    made = make.dataset("MR", 0, stored)
    for index in range(1000):
        made.SOPInstanceUID, made.InstanceNumber = f"1.2.3.{index + 1}", index + 1
        made.ImagePositionPatient = [-100, -110, index]
        path = make.save(made, folders[1000] / f"{index:04d}.dcm")
        if index < 100:
            (folders[100] / path.name).write_bytes(path.read_bytes())
    peak_mib = {}
    for slices, folder in folders.items():
        command = [sys.executable, "-c", CODE, folder, tmp_path / f"out{slices}", bundle]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(shown[0]) == slices
        peak_mib[slices] = float(shown[1])
    print(peak_mib)  # noqa: T201
    assert peak_mib[1000] - peak_mib[100] < GROWTH_MIB, peak_mib
