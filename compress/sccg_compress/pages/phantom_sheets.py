"""Pictures for the docs, made from the phantom alone: what networks draw, and what a bundle changes.

``python -m sccg_compress.pages.phantom_sheets --teacher FILE --out PNG BUNDLE...`` writes the second kind.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_bench.protocols import Pair
from sccg_runtime.errors import SccgError
from sccg_runtime.files import write_bytes

if TYPE_CHECKING:
    from torch import nn


def main(
    bundles: Annotated[list[Path], typer.Argument(help="INT8 bundles of students of one teacher.")],
    teacher: Annotated[Path, typer.Option(help="Checkpoint of the trained generator.")],
    out: Annotated[Path, typer.Option(help="The PNG.")],
) -> None:
    """Write input, teacher, bundle and difference, two slices of the phantom for every bundle."""
    from sccg_teacher_student.checkpoint import load_checkpoint

    write_bytes(out, difference_sheet(load_checkpoint(teacher).generator, bundles))


def difference_sheet(teacher: nn.Module, bundles: Sequence[Path]) -> bytes:
    """PNG of phantom slices, one row per slice and bundle: input, teacher, bundle, and their difference."""
    from sccg_bench.report.sheets import strip_png
    from sccg_runtime.bundle import read_bundle
    from sccg_runtime.direction import modalities
    from sccg_runtime.engine import open_session
    from sccg_teacher_student.networks.inference import infer

    strips = []
    for path in bundles:
        bundle = read_bundle(path)
        direction = bundle.contract.direction
        side_px = max(bundle.contract.trained_size)
        session = open_session(bundle, size=(side_px, side_px))
        for pair in _pairs(side_px):
            given = pair.given(direction)
            wanted = infer(teacher, given)
            output = session(given)
            panels = [(f"{modalities(direction)[0]} of the phantom", given), ("teacher", wanted), (path.stem, output)]
            strips.append(strip_png(panels, output, wanted, "teacher"))
    return _stacked(strips)


def drawn(teachers: Mapping[str, nn.Module]) -> bytes:
    """PNG of phantom slices, one a row: MR, what every ``mr2ct`` teacher makes of it, under its title, and the CT."""
    from sccg_bench.report.sheets import strip_png
    from sccg_teacher_student.networks.inference import infer

    strips = []
    for pair in _pairs():
        mr = pair.given("mr2ct")
        made = {title: infer(net, mr) for title, net in teachers.items()}
        strips.append(strip_png([("MR of the phantom", mr), *made.items(), ("its CT", pair.ct)], mr, None))
    return _stacked(strips)


def _pairs(side_px: int = 256) -> list[Pair]:
    from sccg_teacher_student.data.phantom import phantom_pairs

    return list(phantom_pairs(1, slices=8, size=side_px))[2::3]


def _stacked(strips: Sequence[bytes]) -> bytes:
    """Strips as one PNG in grey, or of 256 colours where there is colour: a third as large."""
    from PIL import Image, ImageChops

    from sccg_bench.report.sheets import stacked_png

    stream = io.BytesIO()
    with Image.open(io.BytesIO(stacked_png(strips))) as image:
        sheet = image.convert("RGB")
        grey = sheet.convert("L")
        coloured = ImageChops.difference(sheet, grey.convert("RGB")).getbbox() is not None
        small = sheet.quantize(256, dither=Image.Dither.NONE) if coloured else grey
        small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    try:
        typer.run(main)
    except SccgError as error:
        sys.exit(f"error: {error}")
