"""Files of the repository that are generated (``make figures``, ``make docs``), and whether they are up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sccg_runtime.errors import InputError
from sccg_runtime.files import write_text


def write_or_check(path: Path, wanted: str, command: str) -> None:
    """Write ``wanted`` to ``path`` where it differs; with ``--check`` among the arguments, end with an error."""
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        return
    if "--check" in sys.argv[1:]:
        sys.exit(f"error: {path} is not up to date: run `{command}`")
    write_text(path, wanted)


@contextmanager
def figures_of(path: Path, what: str) -> Iterator[Any]:
    """What a JSON file holds, while a table is made of it; InputError where it cannot be read as ``what``."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as {what}: {error}") from None
