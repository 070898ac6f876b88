"""Sheets for the docs: what a bundle changes, on the phantom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from command_line import Lab
from PIL import Image


def test_the_difference_of_every_bundle_is_drawn(lab: Lab, bundles: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "sccg_compress.pages.phantom_sheets", "--teacher", lab.teacher, "--out", out]
    subprocess.run([*command, bundles / "small.sccg"], check=True, timeout=200)
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    spread = pixels.max(2) - pixels.min(2)
    coloured = np.flatnonzero((spread > 40).any(0)) / pixels.shape[1]
    assert coloured.min() > 0.7, "input, teacher and bundle are grey, the difference is not"
    said = subprocess.run([*command, tmp_path / "gone.sccg"], capture_output=True, text=True, timeout=200, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith("error: ")
