"""A real browser without a window, for tests of pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name)) is not None), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason=f"none of {', '.join(NAMES)} is installed")


@dataclass(frozen=True)
class Visit:
    """What a page became after its scripts ran, and what it wrote to the console."""

    dom: str
    console: tuple[str, ...]
    picture: bytes


def visit(page: Path, folder: Path, script: str = "", size: tuple[int, int] = (1280, 900)) -> Visit:
    """Open a page, with ``script`` run at its end, and give DOM, console lines and a screenshot.

    The copy that is opened has its script policy opened for ``script``; without one, the page is opened as it is.
    """
    assert PROGRAM is not None
    if script:
        text = re.sub(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", page.read_text(encoding="utf-8"))
        copy = folder / "with-script.html"
        copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        page = copy
    shot = folder / "shot.png"
    command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
    command += ["--virtual-time-budget=4000", "--host-resolver-rules=MAP * ~NOTFOUND", page.resolve().as_uri()]
    home = os.environ | {"HOME": str(folder)}
    told = [
        subprocess.run(
            [*command[:-1], wanted, command[-1]], capture_output=True, text=True, timeout=120, check=True, env=home
        )
        for wanted in ("--dump-dom", f"--screenshot={shot}")
    ]
    console = tuple(line for each in told for line in each.stderr.splitlines() if ":CONSOLE" in line)
    return Visit(told[0].stdout, console, shot.read_bytes())
