"""Build sccg-runtime as a folder that needs no Python, for the system and processor that this runs on.

    python build.py dist/sccg-runtime

What the running environment holds goes in: NIfTI output where nibabel is installed. Needs PyInstaller (extra
``standalone``). Prints how large each part is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from sccg_runtime.errors import InputError
from sccg_runtime.files import whole_folder

SPEC = Path(__file__).with_name("sccg-runtime.spec")
LIBRARIES = "_internal"
LARGE_BYTES = 1_000_000


def build(out: Path) -> None:
    """Make the folder ``out``, whole or not at all; one of an earlier build is replaced.

    Raises
    ------
    InputError
        ``out`` is something else than an earlier build, or PyInstaller failed.
    """
    if out.exists():
        _check_earlier(out)
    with (
        whole_folder(out, replaceable=_check_earlier) as folder,
        tempfile.TemporaryDirectory(prefix=".build-", dir=out.parent) as work,
    ):
        options = ["--noconfirm", "--log-level", "WARN", "--distpath", work, "--workpath", f"{work}/work", str(SPEC)]
        result = subprocess.run([sys.executable, "-m", "PyInstaller", *options], check=False)
        if result.returncode:
            raise InputError("PyInstaller failed: see above")
        for item in Path(work, SPEC.stem).iterdir():
            item.rename(folder / item.name)


def _check_earlier(out: Path) -> None:
    if not (out / LIBRARIES).is_dir():
        raise InputError(f"{out} exists and is no earlier build: name another folder")


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of 1 MB or more, largest first, then of all smaller ones, then of all; paths with ``/``."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    large = Counter({name: size for name, size in files.items() if size >= LARGE_BYTES})
    return {
        **dict(large.most_common()),
        f"{len(files) - len(large)} smaller files": sum(files.values()) - large.total(),
        "all": sum(files.values()),
    }


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build sccg-runtime as a folder that needs no Python.")
    parser.add_argument("out", type=Path, help="folder to make")
    out = parser.parse_args().out
    try:
        build(out)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for name, size in sizes(out).items():
        sys.stdout.write(f"{size / 1e6:8.1f} MB  {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
