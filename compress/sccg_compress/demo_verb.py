"""``phantom`` and ``demo``: simulated heads, and the whole way on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of cases.")] = 12,
    slices: Annotated[int, typer.Option(min=1, help="Slices per case.")] = 24,
    size: Annotated[int, typer.Option(min=16, help="Rows and columns in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Write a procedural head phantom: paired DICOM series, CT in HU and T2-weighted MR."""
    from sccg_teacher_student.data.phantom_dicom import write_phantom

    folder = write_phantom(out, patients=patients, slices=slices, size=size, seed=seed, force=force)
    typer.echo(f"{folder}: {patients} cases of {slices} slices, {size}x{size} pixels, simulated")


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; made anew.")] = Path("demo"),
) -> None:
    """Walk the whole way on the phantom in a few minutes: teacher, student, INT8 bundles, bench, DICOM."""
    from sccg_compress.demo import run_demo

    run_demo(out)
