"""Files of the repository that are generated (``make figures``, ``make docs``), and whether they are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from sccg_runtime.files import write_text


def write_or_check(path: Path, wanted: str, command: str) -> None:
    """Write ``wanted`` to ``path`` where it differs; with ``--check`` among the arguments, end with an error."""
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        return
    if "--check" in sys.argv[1:]:
        sys.exit(f"error: {path} is not up to date: run `{command}`")
    write_text(path, wanted)
