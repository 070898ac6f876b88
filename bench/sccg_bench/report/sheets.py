"""Picture strips: input, reference, teacher, model, difference with a colour bar; of the worst, median, best slice.

And of the slice with the largest local difference. A frame marks the place of each slice's own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sccg_bench.report.charts import literal, png_bytes
from sccg_bench.results import Row
from sccg_bench.run import BenchResult
from sccg_bench.scale import to_u8
from sccg_runtime.direction import modalities
from sccg_runtime.intensity import FloatArray

DIFFERENCE_U8 = 40.0
"""The colour bar always reaches so many grey levels of 255, so that strips can be compared."""
_TITLES = {"spot": "Largest local difference:"}
_PANEL_INCH = 2.4
_DPI = 130


@dataclass(frozen=True, slots=True)
class Strip:
    """One picture strip.

    Attributes
    ----------
    row
        Name of the row that it shows.
    which
        ``worst``, ``median`` or ``best``, or ``spot``: the slice with the largest local difference to the teacher.
    where
        ``"case/slice"``.
    caption, alt
        For people who see it, and for those who do not.
    png
        The picture.
    output_png, base_png, base_name
        The model's slice alone and the one that it is compared with (``teacher`` or ``reference``), in grey at their
        own size, for the slider; empty where there is nothing to compare with.
    """

    row: str
    which: str
    where: str
    caption: str
    alt: str
    png: bytes
    output_png: bytes = b""
    base_png: bytes = b""
    base_name: str = ""


def strips(found: BenchResult, roles: Sequence[str] = ("model",)) -> list[Strip]:
    """Strips of the landmarks of every row of these roles that gave outputs, each slice once."""
    direction = found.results.direction
    if direction is None:
        return []
    source, target = modalities(direction)
    teacher_row = next((row for row in found.results.rows if row.role == "teacher"), None)
    teacher = found.outputs.get(teacher_row.name) if teacher_row is not None else None
    places = {pair.label: index for index, pair in enumerate(found.pairs)}
    made = []
    for row in found.results.rows:
        outputs = found.outputs.get(row.name)
        if outputs is None or row.role not in roles:
            continue
        shown: set[str] = set()
        for which, where in (row.landmarks or {}).items():
            if where in shown:
                continue
            shown.add(where)
            title = _TITLES.get(which, which.capitalize())
            index = places[where]
            pair = found.pairs[index]
            given, reference = pair.image(source), pair.image(target)
            of_teacher = None if teacher is None or row.role == "teacher" else teacher[index]
            panels = [
                (f"input ({source})", given),
                (f"reference (real {target})", reference),
                ("teacher", of_teacher if row.role != "teacher" else None),
                (row.name, outputs[index]),
            ]
            base, base_name = (of_teacher, "teacher") if of_teacher is not None else (reference, "reference")
            part = _part(row, where)
            closeness = _closeness(part)
            made.append(
                Strip(
                    row=row.name,
                    which=which,
                    where=where,
                    caption=f"{title} slice, {where}: {closeness}",
                    alt=f"{title} slice {where} of {row.name}, from left to right: input {source}, "
                    f"reference {target}, teacher, {row.name}, and the difference to the {base_name}; {closeness}.",
                    png=strip_png(panels, outputs[index], base, base_name, part.get("spot")),
                    output_png=b"" if base is None else grey_png(outputs[index]),
                    base_png=b"" if base is None else grey_png(base),
                    base_name=base_name,
                )
            )
    return made


def strip_png(
    panels: Sequence[tuple[str, FloatArray | None]],
    output: FloatArray,
    base: FloatArray | None,
    base_name: str = "",
    spot: Mapping[str, Any] | None = None,
) -> bytes:
    """Panels side by side, grey from -1 to 1, and ``output - base`` in colour with its bar in grey levels of 255.

    Parameters
    ----------
    panels
        Title and slice (1, H, W) in [-1, 1]; a missing slice leaves its place empty and says so.
    output, base
        (1, H, W) in [-1, 1]; without ``base`` there is no difference.
    spot
        JSON form of the :class:`sccg_bench.spot.Spot` that a frame, three times its side, marks in every panel.
    """
    rows, columns = output.shape[1:]
    count = len(panels) + (base is not None)
    figure = Figure(figsize=(_PANEL_INCH * count + 0.7, _PANEL_INCH * rows / columns + 0.35), layout="constrained")
    axes = figure.subplots(1, count)
    for place, (title, image) in zip(axes, panels, strict=False):
        place.set_title(literal(title), fontsize=9)
        place.set_axis_off()
        if image is None:
            place.text(0.5, 0.5, "none", ha="center", va="center", fontsize=9, color="#5b6b7a")
        else:
            place.imshow(image[0], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            _frame(place, spot, "#ffd24d")
    if base is not None:
        last = axes[-1]
        last.set_axis_off()
        last.set_title(f"model − {literal(base_name)}", fontsize=9)
        shown = last.imshow(
            to_u8(output) - to_u8(base), cmap="RdBu_r", vmin=-DIFFERENCE_U8, vmax=DIFFERENCE_U8, interpolation="nearest"
        )
        _frame(last, spot, "#1b2733")
        bar = figure.colorbar(shown, ax=last, fraction=0.05, pad=0.02, extend="both")
        bar.ax.tick_params(labelsize=8)
        bar.set_label("grey levels of 255", fontsize=8)
    return png_bytes(figure, _DPI)


def grey_png(image: FloatArray) -> bytes:
    """A slice (1, H, W) in [-1, 1] as an 8-bit grey PNG of its own size."""
    grey = np.clip(np.rint(to_u8(image)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey.reshape(image.shape[1:])).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def stacked_png(pngs: Sequence[bytes]) -> bytes:
    """Pictures one under another on white, left-aligned."""
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pngs]
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _frame(axes: Any, spot: Mapping[str, Any] | None, colour: str) -> None:
    if spot is not None:
        side = spot["side_px"]
        corner = spot["column"] - side - 0.5, spot["row"] - side - 0.5
        axes.add_patch(Rectangle(corner, 3 * side, 3 * side, fill=False, edgecolor=colour, linewidth=1))


def _part(row: Row, where: str) -> Mapping[str, Any]:
    return next((each for each in row.per_slice if f"{each.get('case')}/{each.get('slice')}" == where), {})


def _closeness(part: Mapping[str, Any]) -> str:
    found = []
    for group, name, text in (
        ("drift", "to_teacher_psnr_db", "{:.1f} dB to the teacher"),
        ("quality", "hf_ratio", "high-frequency ratio {:.2f}"),
        ("quality", "psnr_db", "{:.1f} dB to the reference"),
    ):
        value = (part.get(group) or {}).get(name)
        if value is not None:
            found.append(text.format(value))
    if part.get("spot"):
        found.append(
            "largest local difference {difference_u8:+.0f} at row {row}, column {column}".format(**part["spot"])
        )
    return ", ".join(found) or "no figures"
