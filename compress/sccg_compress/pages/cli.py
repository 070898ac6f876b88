"""docs/cli.md: what ``--help`` of every verb prints (``make docs``), and the check that it is up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sccg_compress.pages.generated import write_or_check

PAGE = Path("docs", "cli.md")
PROGRAMS = {"sccg-compress": "sccg_compress", "sccg-runtime": "sccg_runtime"}
_PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
_VERBS = re.compile(r"^commands:\n((?: .*\n)+)", re.IGNORECASE | re.MULTILINE)


def page() -> str:
    """The whole page, in Markdown."""
    parts = ["# Command line\n\nWhat `--help` prints, written by `make docs`.\n"]
    for program, module in PROGRAMS.items():
        for verbs, text in _walk(module):
            parts.append(f"{'#' * (2 + len(verbs))} {' '.join((program, *verbs))}\n\n```\n{text}```\n")
    return "\n".join(parts)


def verbs_of(text: str) -> list[str]:
    """Names of the verbs that a help text lists.

    Example
    -------
    >>> verbs_of("Usage: it\\n\\nCommands:\\n  fly    Leave the ground, and\\n         come back.\\n  swim   Float.\\n")
    ['fly', 'swim']
    """
    found = _VERBS.search(text)
    if found is None:
        return []
    lines = [line for line in found[1].splitlines() if line.split()[0] != "COMMAND"]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return [line.split()[0] for line in lines if not line[indent:].startswith(" ")]


def _walk(module: str, verbs: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(verbs, help) of a program and of each of its verbs, in order."""
    text = _help(module, verbs)
    yield verbs, text
    for verb in verbs_of(text):
        yield from _walk(module, (*verbs, verb))


def _help(module: str, verbs: tuple[str, ...]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"} | _PLAIN
    command = [sys.executable, "-m", module, *verbs, "--help"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def main() -> None:
    """Write the page, or with ``--check`` fail where it differs."""
    write_or_check(PAGE, page(), "make docs")


if __name__ == "__main__":
    main()
