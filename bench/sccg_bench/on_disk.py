"""Slices in a temporary file instead of memory: outputs of many models for many slices take gigabytes."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterable

import numpy as np

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray


def on_disk(images: Iterable[FloatArray]) -> list[FloatArray]:
    """The same float32 arrays, of any sizes, to be read only: views of one file in the system's temporary folder.

    Taken one after another. The file has no name and one handle; it goes with the last view, however the process ends.
    """
    shapes: list[tuple[int, ...]] = []
    with tempfile.TemporaryFile() as file:
        for image in images:
            file.write(image.tobytes())
            shapes.append(image.shape)
        file.flush()  # written, not mapped for writing: a full disk is then an OSError, not a signal
        if not shapes:
            return []
        stored = np.memmap(file, np.float32, "r").view(np.ndarray)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(stored, ends[:-1]), shapes, strict=True)]


def check_room(size_bytes: int) -> None:
    """InputError if the temporary folder has no room for files of so many bytes together."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise InputError(
            f"outputs of the models take {size_bytes / 2**30:.1f} GiB, {folder} has {free / 2**30:.1f} free: "
            "name another folder by the variable TMPDIR"
        )
