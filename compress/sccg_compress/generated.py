"""Files of the repository that are generated (``make figures``, ``make docs``), and whether they are up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sccg_runtime.files import write_text


def write_or_check(path: Path, wanted: str, command: str) -> None:
    """Write ``wanted`` to ``path`` where it differs; with ``--check`` among the arguments, end with an error."""
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        return
    if "--check" in sys.argv[1:]:
        sys.exit(f"error: {path} is not up to date: run `{command}`")
    write_text(path, wanted)


def with_block(text: str, name: str, lines: Sequence[str]) -> str:
    """``text`` with ``lines`` between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    return block.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text)
