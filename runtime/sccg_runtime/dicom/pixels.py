"""From a DICOM file to modality values: HU for CT, signal for MR (PS3.3 C.11.1, C.7.6.3, C.7.5.1.1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sccg_runtime.dicom.decoder import decode
from sccg_runtime.dicom.header import Header, numbers
from sccg_runtime.errors import InputError, SeriesError
from sccg_runtime.intensity import FloatArray, Modality

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CT_BACKGROUND_HU = -1024.0
MR_BACKGROUND = 0.0
MAX_RESCALE = 1e9  # beyond, float32 values overflow or lose their steps
_PADDING_KEYWORDS = ("PixelPaddingValue", "PixelPaddingRangeLimit")


class _UnfitError(Exception):
    """Why an image is not converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Stored values of one image and how they become modality values.

    Attributes
    ----------
    stored
        (rows, columns) int16 or uint16, unused bits removed, MONOCHROME1 of MR turned over.
    padding
        (rows, columns) bool: where the image holds padding, not signal; None where there is none.
    slope, intercept
        Modality value = stored * slope + intercept.
    modality
        ``"CT"`` (values in HU) or ``"MR"`` (no unit).
    dataset
        The image's attributes without pixels.
    frame_number
        From 1, where the image is a frame of a multi-frame file; else None.
    """

    stored: npt.NDArray[Any] = field(repr=False)
    padding: npt.NDArray[np.bool_] | None = field(repr=False)
    slope: float
    intercept: float
    modality: Modality
    dataset: Dataset = field(repr=False)
    frame_number: int | None = None

    @property
    def outside(self) -> npt.NDArray[np.bool_] | None:
        """(rows, columns) bool: where nothing was imaged, or None.

        That is padding, but not where MR's is the value of no signal, which bone and air in the head have as well.
        """
        if self.padding is None or self.modality == "CT":
            return self.padding
        outside: npt.NDArray[np.bool_] = self.padding & (
            modality_values(self.stored, self.slope, self.intercept) != MR_BACKGROUND
        )
        return outside

    def values(self) -> FloatArray:
        """(rows, columns) float32 modality values; padding is -1024 HU in CT and 0 in MR."""
        values = modality_values(self.stored, self.slope, self.intercept)
        if self.padding is not None:
            values[self.padding] = CT_BACKGROUND_HU if self.modality == "CT" else MR_BACKGROUND
        return values


def modality_values(stored: npt.NDArray[Any], slope: float, intercept: float) -> FloatArray:
    """Stored values times slope plus intercept, in float32; any shape."""
    values: FloatArray = stored.astype(np.float32)
    if slope != 1:
        values *= np.float32(slope)
    if intercept != 0:
        values += np.float32(intercept)
    return values


def read_plane(header: Header, modality: Modality) -> Plane:
    """Decode one image.

    Raises
    ------
    SeriesError
        The file cannot be decoded or is cut off, no decoder for its transfer syntax is here, or its values have no
        defined meaning (no rescale in CT, another unit than HU, a modality LUT, colour, more than 16 bits).
    """
    from pydicom import dcmread

    name = header.name
    try:
        if header.frame is not None:
            dataset = header.frame.dataset()
        else:
            with header.entry.open() as stream:
                dataset = dcmread(stream)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise SeriesError(f"{name} cannot be read ({type(error).__name__}): replace or remove it") from None
    return plane_of(name, dataset, modality, header.size, None if header.frame is None else header.frame.number)


def plane_of(
    name: str, dataset: Dataset, modality: Modality, size: tuple[int, int], frame_number: int | None = None
) -> Plane:
    """Decode an image that was read; its pixels are removed from ``dataset``.

    Parameters
    ----------
    name
        For messages.
    size
        (rows, columns) that it must have.

    Raises
    ------
    SeriesError
        As :func:`read_plane`.
    """
    from pydicom.errors import BytesLengthException

    try:
        _check(dataset, modality)
        stored = decode(name, dataset)
        if stored.shape != size:
            raise _UnfitError(f"holds {stored.shape} pixels, its header says {size}")
        slope, intercept = _rescale(dataset, modality)
        padding = _padding(dataset, stored)
        stored = _used_bits(dataset, stored)
    except _UnfitError as error:
        raise SeriesError(f"{name} {error}: take another series, or one without this image") from None
    # the last two for a VR that there is not and for a value cut off
    except (TypeError, ValueError, OverflowError, NotImplementedError, BytesLengthException) as error:
        raise SeriesError(
            f"{name} has damaged pixel attributes ({type(error).__name__}): replace or remove it"
        ) from None
    if modality == "MR" and dataset.PhotometricInterpretation == "MONOCHROME1":
        stored = _turned_over(dataset, stored)
    del dataset.PixelData
    return Plane(
        stored=stored,
        padding=padding,
        slope=slope,
        intercept=intercept,
        modality=modality,
        dataset=dataset,
        frame_number=frame_number,
    )


def _check(dataset: Dataset, modality: Modality) -> None:
    if "PixelData" not in dataset:
        raise _UnfitError("has no pixel data (or floating-point pixels, which are not read)")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise _UnfitError("is not a greyscale image")
    if dataset.get("BitsAllocated") not in (8, 16):
        raise _UnfitError(f"has {dataset.get('BitsAllocated')} bits per pixel, not 8 or 16")
    stored, high = dataset.get("BitsStored"), dataset.get("HighBit")
    if not isinstance(stored, int) or not 1 <= stored <= dataset.BitsAllocated or high != stored - 1:
        raise _UnfitError(f"has BitsStored {stored} with HighBit {high}")
    if dataset.get("PixelRepresentation") not in (0, 1):
        raise _UnfitError("does not say whether its pixels are signed")
    if dataset.get("ModalityLUTSequence"):
        raise _UnfitError("has a modality LUT, which is not read")
    units = str(dataset.get("RescaleType") or "HU").strip()
    if modality == "CT" and units != "HU":
        raise _UnfitError(f"holds values in {units[:16]!r}, not in HU")


def _rescale(dataset: Dataset, modality: Modality) -> tuple[float, float]:
    given = [numbers(dataset.get(keyword), 1) for keyword in ("RescaleSlope", "RescaleIntercept")]
    if given[0] is None or given[1] is None:
        if modality == "CT" or given != [None, None]:
            raise _UnfitError("has no usable RescaleSlope and RescaleIntercept: its values have no unit")
        return 1.0, 0.0
    slope, intercept = given[0][0], given[1][0]
    if slope == 0 or (modality == "MR" and slope < 0) or abs(slope) > MAX_RESCALE:
        raise _UnfitError(f"has RescaleSlope {slope:g}")
    if abs(intercept) > MAX_RESCALE:
        raise _UnfitError(f"has RescaleIntercept {intercept:g}")
    return slope, intercept


def _padding(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where pixels are padding (PS3.3 C.7.5.1.1.2).

    Scanners write padding that does not fit into BitsStored, and sign-extend it or not: pixels are compared both as
    they are in the file and without their unused bits.
    """
    given = [dataset.get(keyword) for keyword in _PADDING_KEYWORDS]
    if given[0] in (None, ""):
        return None
    bits = 8 * stored.dtype.itemsize
    patterns = np.array([int(value) & (2**bits - 1) for value in given if value not in (None, "")], f"u{bits // 8}")
    limits = patterns.view(stored.dtype)
    mask = (stored >= limits.min()) & (stored <= limits.max())
    used = _used_bits(dataset, stored)
    mask |= (used >= limits.min()) & (used <= limits.max())
    return mask if mask.any() else None


def _used_bits(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Remove bits above BitsStored, which may hold an old-style overlay, and extend the sign."""
    unused = 8 * stored.dtype.itemsize - int(dataset.BitsStored)
    if unused == 0:
        return stored
    used: npt.NDArray[Any] = np.right_shift(np.left_shift(stored, unused), unused)
    return used


def _turned_over(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """MONOCHROME1: the smallest value is white. Turn it over within the range of the stored bits."""
    if stored.dtype.kind == "i":
        turned: npt.NDArray[Any] = np.invert(stored)
    else:
        turned = np.subtract(stored.dtype.type(2 ** int(dataset.BitsStored) - 1), stored)
    return turned


class StoredHistogram:
    """Counts of modality values over a series: exact, and small whatever the number of slices.

    One count per stored value that occurs and pair of slope and intercept; padding is left out.

    Attributes
    ----------
    padded
        Whether there was padding.
    """

    def __init__(self) -> None:
        self.padded = False
        # (slope, intercept, lowest) -> (stored values less the lowest, ascending; how many pixels have each)
        self._counts: dict[tuple[float, float, int], tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = {}

    def add(self, plane: Plane) -> None:
        """Count one image."""
        self.padded |= plane.padding is not None
        stored = plane.stored if plane.padding is None else plane.stored[~plane.padding]
        lowest = int(np.iinfo(plane.stored.dtype).min)
        counts = np.bincount(stored.ravel().astype(np.int64) - lowest)
        key = (plane.slope, plane.intercept, lowest)
        if key in self._counts:
            present, before = self._counts[key]
            counts = np.pad(counts, (0, max(0, int(present[-1]) + 1 - len(counts))))
            counts[present] += before
        if counts.any():
            present = np.flatnonzero(counts)
            self._counts[key] = (present, counts[present])

    def values_and_counts(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Modality values, ascending and each once, float64; and how many pixels have each, int64."""
        values, counts = [], []
        for (slope, intercept, lowest), (present, counted) in self._counts.items():
            values.append(modality_values(present + lowest, slope, intercept).astype(np.float64))
            counts.append(counted)
        if not values:
            return np.empty(0), np.empty(0, np.int64)
        unique, index = np.unique(np.concatenate(values), return_inverse=True)
        return unique, np.bincount(index, weights=np.concatenate(counts), minlength=len(unique)).astype(np.int64)
