import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("dicom", ("plain converted", "plain refused", "enhanced converted", "enhanced refused", "JPEG2000")),
        (
            "bundles",
            ("bytes changed refused", "a path as name refused", "a member twice refused", "another order refused"),
        ),
    ],
)
def test_500_damaged_inputs_keep_every_promise(kind, outcomes):
    """No traceback, no hang, nothing written elsewhere, no silent gap: see fuzz.py, which `make fuzz` runs longer."""
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), kind, "--cases", "500", "--seed", "20"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "500 cases kept every promise, 0 did not" in result.stdout
    for outcome in outcomes:
        assert outcome in result.stdout
