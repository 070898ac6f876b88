"""The script that prints what a clinic waits for measures real conversions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sccg_bench", reason="sccg_bench, which measures, is not part of sccg-runtime")
SCRIPT = Path(__file__).parents[2] / "bench" / "clinic_figures.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_figure_is_measured_and_held_against_its_limit(bundle_file, series, tmp_path):
    out = tmp_path / "figures.json"
    done = run(bundle_file(), series(slices=12), "--rounds", "2", "--json", out)
    assert done.returncode == 0, done.stderr
    figures = {each["name"].split(",")[0]: each for each in json.loads(out.read_text())["figures"]}
    first, whole = figures["installed: first slice written"], figures["installed: 12 slices"]
    steady, peak = figures["installed: steady state per slice"], figures["installed: peak memory"]
    assert 0 < first["value"] < whole["value"]
    assert 0 <= steady["value"] <= (whole["value"] - first["value"]) * 1000
    assert steady["most"] > 0
    assert sys.platform != "linux" or 50 < peak["value"] < 1000
    for each in figures.values():
        assert each["lowest"] <= each["value"] <= each["highest"]
        assert any(
            line.startswith(each["name"]) and line.endswith(": met" if each["value"] <= each["most"] else ": NOT met")
            for line in done.stdout.splitlines()
        )


def test_a_conversion_that_fails_is_one_line(bundle_file, tmp_path):
    done = run(bundle_file(), tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr == "error: the conversion failed: none: no such folder or file\n"
