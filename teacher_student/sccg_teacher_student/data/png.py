"""Cases of PNG slices: ``CASE/mr/NNN.png`` with ``CASE/ct/NNN.png``, paired by file name.

The values are taken as already normalised: 0 becomes -1 and full scale (255 or 65535) becomes +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Modality
from sccg_teacher_student.data.reader import SliceNames, child, visible

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True, slots=True)
class PngReader:
    """Reads PNG cases.

    Attributes
    ----------
    only
        None for pairs; ``"MR"`` or ``"CT"`` for folders of one modality, whose slices may lie in the case itself.
    """

    only: Modality | None = None

    def names(self, folder: Path) -> SliceNames:
        """Slice names (file names without ``.png``) of the case in ``folder``."""
        found = {name: tuple(_files(folder, name, self.only)) for name in ("mr", "ct")}
        return SliceNames(found["mr"], found["ct"])

    def load(self, folder: Path, name: str) -> tuple[FloatArray | None, FloatArray | None]:
        """(mr, ct) of one slice, each (1, H, W) float32 in [-1, 1], or None where that file is not there.

        Raises
        ------
        InputError
            A file is no 8- or 16-bit grey PNG, or the two differ in size.
        """
        files = {modality: _files(folder, modality, self.only).get(name) for modality in ("mr", "ct")}
        if not any(files.values()):
            raise InputError(f"{folder}: no slice {name}.png in mr/ or ct/")
        mr, ct = (read_png(file) if file else None for file in (files["mr"], files["ct"]))
        if mr is not None and ct is not None and mr.shape != ct.shape:
            sizes = f"mr is {mr.shape[1]}x{mr.shape[2]}, ct is {ct.shape[1]}x{ct.shape[2]} (rows x columns)"
            raise InputError(f"{folder}, slice {name}: {sizes}; a pair must have one size, resample one onto the other")
        return mr, ct

    def spacing_mm(self, folder: Path) -> tuple[float, float] | None:
        """None: a PNG states no spacing that could be trusted."""
        return None


def read_png(path: Path) -> FloatArray:
    """Read one slice, (1, H, W) float32 in [-1, 1]; rows from top to bottom, columns from left to right.

    8- or 16-bit grey, or 8-bit RGB whose channels are equal (grey saved as colour).

    Raises
    ------
    InputError
        Not a PNG, damaged, or with colour, palette, alpha or another bit depth.
    """
    try:
        with path.open("rb") as file:
            header = file.read(26)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(header) < 26 or header[:8] != _SIGNATURE:
        raise InputError(f"{path}: not a PNG file")
    depth, colour = header[24], _COLOUR_TYPES.get(header[25], "unknown")
    if (colour, depth) not in (("grey", 8), ("grey", 16), ("RGB", 8)):
        raise InputError(f"{path}: {depth}-bit {colour} PNG; save it as 8- or 16-bit grey")
    try:
        with Image.open(path) as image:
            image.load()
            if "transparency" in image.info:
                raise InputError(f"{path}: has a transparent colour (alpha); save it as plain grey")
            values = np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: damaged PNG ({error})") from None
    if values.ndim == 3:
        if not ((values[..., 0] == values[..., 1]) & (values[..., 0] == values[..., 2])).all():
            raise InputError(f"{path}: colour picture (red, green and blue differ); save it as 8- or 16-bit grey")
        values = values[..., 0]
    full_scale = np.float32(65535 if depth == 16 else 255)
    return (values.astype(np.float32) / full_scale * np.float32(2) - np.float32(1))[np.newaxis]


def holds_png(folder: Path) -> bool:
    """Whether there is at least one ``.png`` directly in ``folder``."""
    return any(entry.suffix.lower() == ".png" for entry in visible(folder))


def _files(folder: Path, modality: Literal["mr", "ct"] | str, only: Modality | None) -> dict[str, Path]:
    """Slice name -> file of one modality of a case; empty where it has none."""
    if only is not None and only.lower() != modality:
        return {}
    place = child(folder, modality) or (folder if only is not None else None)
    if place is None:
        return {}
    files: dict[str, Path] = {}
    for entry in visible(place):
        if entry.suffix.lower() != ".png":
            continue
        if entry.stem in files:
            raise InputError(f"{entry}: a second file for slice {entry.stem}; keep one of them")
        files[entry.stem] = entry
    return files
