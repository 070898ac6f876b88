"""Lesion masks of a case, for figures inside a lesion: ``CASE/lesion/SLICE.png`` beside its MR and CT, of any kind.

SLICE is the name that the slice has in reports; every pixel that is not black lies inside the lesion.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.png import read_png
from sccg_teacher_student.data.reader import child, visible


def read_lesion(folder: Path, name: str, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """The mask of one slice, (H, W) bool, rows from top to bottom; None where the case has none for it.

    Parameters
    ----------
    folder
        Of the case.
    name
        Of the slice.
    size
        (rows, columns) of its pictures.

    Raises
    ------
    InputError
        It is no grey PNG, or has another size.
    """
    place = child(folder, "lesion")
    path = None if place is None else place / f"{name}.png"
    if path is None or not path.is_file():
        return None
    mask: npt.NDArray[np.bool_] = read_png(path)[0] > -1
    if mask.shape != size:
        raise InputError(
            f"{path}: is {mask.shape[0]}x{mask.shape[1]}, its slice {size[0]}x{size[1]} (rows x columns): draw it there"
        )
    return mask


def strays(folder: Path, names: Iterable[str]) -> list[str]:
    """What lies in the ``lesion`` folder of the case in ``folder`` and belongs to none of the slices ``names``."""
    place = child(folder, "lesion")
    masks = {f"{name}.png" for name in names}
    return [] if place is None else [entry.name for entry in visible(place) if entry.name not in masks]


def resize_lesion(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask (H, W) on a grid of ``size`` (rows, columns) over the same area: every pixel that the lesion touches."""
    share = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX)
    touched: npt.NDArray[np.bool_] = np.asarray(share) > 0
    return touched
