"""What bench takes: callables and arrays, never models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Modality

Call = Callable[[FloatArray], FloatArray]
"""One slice (1, H, W) float32 in [-1, 1] in, one out; input copied in, output copied out."""


@dataclass(frozen=True, slots=True)
class Pair:
    """MR and CT slice of the same level of one case; one of the two may be missing.

    Attributes
    ----------
    case
        The patient; every split is by case.
    slice
        Name of the slice within the case.
    mr, ct
        (1, H, W) float32 in [-1, 1], or None where there is no such slice.
    lesion
        (H, W) bool, True inside a lesion; None where nobody drew one.
    """

    case: str
    slice: str
    mr: FloatArray | None
    ct: FloatArray | None
    lesion: npt.NDArray[np.bool_] | None = None

    @property
    def label(self) -> str:
        """``CASE/SLICE``, as every report names it."""
        return f"{self.case}/{self.slice}"

    def image(self, modality: Modality) -> FloatArray | None:
        """The slice of ``"MR"`` or ``"CT"``."""
        return self.mr if modality == "MR" else self.ct

    def given(self, direction: Direction) -> FloatArray:
        """The input slice of a direction (InputError where it is missing)."""
        modality, _ = modalities(direction)
        image = self.image(modality)
        if image is None:
            raise InputError(f"{self.label} has no {modality} slice")
        return image

    def reference(self, direction: Direction) -> FloatArray | None:
        """The real slice of the modality that a direction makes."""
        return self.image(modalities(direction)[1])


class Runnable(Protocol):
    """A model that bench can open in a child process. Instances are pickled to it, so they hold paths, not sessions."""

    @property
    def name(self) -> str:
        """Name of the row in every table."""

    def open(self, size: tuple[int, int], threads: int) -> Call:
        """Load the model for slices of ``size`` (rows, columns), with ``threads`` CPU threads.

        A call ends when its output is in the host's memory, so whoever times it need not wait for a device.
        """

    def describe(self) -> dict[str, Any]:
        """After ``open``: engine, engine_version, device, precision, precision_ran (asked of the engine), size_mib.

        A bundle may add ``engine_drift``, the figures of its own drift.json; they are shown as "from export"; and
        ``float_layers``, the names of what stayed in float, and ``quantizer``, what made it INT8. A model on a GPU may
        have an attribute ``device_times_ms``: of every call since ``open``, what the GPU's own events say.
        """


@runtime_checkable
class Converter(Protocol):
    """A runnable that also converts whole DICOM series, as a clinic would: a bundle."""

    def convert(self, series: Path, out: Path, threads: int) -> int:
        """Read the DICOM files of ``series`` (a folder or one file), write the folder ``out``; number of slices."""
