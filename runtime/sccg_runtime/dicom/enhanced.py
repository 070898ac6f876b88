"""Enhanced (multi-frame) CT and MR: every frame as if it were a classic image (PS3.3 A.36, A.38, A.70, C.7.6.16).

What a classic image says at its top level, a frame says in functional groups: shared ones for all frames, per-frame
ones for itself. Both are put over the file's top level. Pixels are read frame by frame; the file is never whole in
memory, unless it is deflated.
"""

from __future__ import annotations

import io
import tempfile
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from sccg_runtime.dicom.header import DEFLATED, Header, header_of
from sccg_runtime.errors import InputError, SeriesError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 20_000
COPY_BYTES = 2**20
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
        "PlanePositionSequence": ("ImagePositionPatient",),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
        "MREchoSequence": ("EffectiveEchoTime",),
        "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
        "FrameAnatomySequence": ("AnatomicRegionSequence",),
        "CTImageFrameTypeSequence": ("FrameType", "VolumeBasedCalculationTechnique"),
        "MRImageFrameTypeSequence": ("FrameType", "VolumeBasedCalculationTechnique", "ComplexImageComponent"),
    }
)
_OF_THE_FILE = ("NumberOfFrames", "InstanceNumber", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_LONG_LENGTH_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")


class Frame:
    """One frame of a file.

    Attributes
    ----------
    number
        From 1, as ReferencedFrameNumber (0008,1160) counts.
    """

    __slots__ = ("_file", "_own", "number")

    def __init__(self, file: _File, number: int, own: Dataset) -> None:
        self._file, self._own, self.number = file, own, number

    def attributes(self) -> Dataset:
        """The attributes of a classic image, without pixels."""
        from pydicom.dataset import Dataset

        top, made = self._file.top, Dataset()
        for tag in top.keys():  # noqa: SIM118  (a Dataset iterates over elements)
            made[tag] = top.get_item(tag)
        for element in self._own:
            made[element.tag] = element
        if "FrameType" in made:
            made.pop("ImageType", None)
        for keyword in _OF_THE_FILE:
            made.pop(keyword, None)  # setting a value instead would change the element that all frames share
        made.NumberOfFrames, made.InstanceNumber = 1, self.number
        if "FrameType" in made:
            made.ImageType = made.FrameType
        made.file_meta = top.file_meta
        return made

    def dataset(self) -> Dataset:
        """The same with the pixels of this frame, as they are in the file."""
        from pydicom.dataelem import DataElement
        from pydicom.encaps import encapsulate

        made = self.attributes()
        pixels = self._file.pixels(self.number - 1)
        compressed = made.file_meta.TransferSyntaxUID.is_compressed
        if compressed:
            pixels = encapsulate([pixels])
        vr = "OB" if compressed or made.BitsAllocated == 8 else "OW"
        made["PixelData"] = DataElement(0x7FE00010, vr, pixels, is_undefined_length=compressed)
        return made


class _File:
    """A multi-frame file: its top level, and where the pixels of each frame lie."""

    def __init__(self, header: Header) -> None:
        from pydicom import dcmread

        self._header, self._lock = header, threading.Lock()
        self._copy: BinaryIO | None = None
        with header.entry.open() as stream:
            self._copied = isinstance(stream, io.BytesIO)  # of a zip
            self.top = dcmread(stream, stop_before_pixels=True)
            self._offset = stream.tell()
        list(self.top.iterall())  # reads all, as several threads look at it from here on; decode() would change names
        if str(self.top.file_meta.TransferSyntaxUID) == DEFLATED:
            with header.entry.open() as stream:
                self._copy, self._offset, self._copied = io.BytesIO(dcmread(stream).PixelData), -1, True
        self.shared = _one(self.top, "SharedFunctionalGroupsSequence")
        self.per_frame = list(self.top.get("PerFrameFunctionalGroupsSequence") or ())
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            if keyword in self.top:
                del self.top[keyword]

    def pixels(self, index: int) -> bytes:
        """Bytes of frame ``index`` (from 0), padded to even length."""
        if not self._copied:
            with self._header.entry.open() as stream:
                found = self._read(stream, index)
        else:
            with self._lock:
                found = self._read(self._copied_stream(), index)
        return found + b"\0" * (len(found) % 2)

    def _copied_stream(self) -> BinaryIO:
        """A member of a zip, copied once into a file without a name that goes with this object."""
        if self._copy is None:
            copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            weakref.finalize(self, copy.close)
            with self._header.entry.open() as stream:
                while piece := stream.read(COPY_BYTES):
                    left = memoryview(piece)
                    try:
                        while left:
                            left = left[copy.write(left) :]
                    except OSError as error:
                        raise InputError(f"{tempfile.gettempdir()}: {error.strerror}") from None
            self._copy = copy
        return self._copy

    def _read(self, stream: BinaryIO, index: int) -> bytes:
        from pydicom.encaps import get_frame

        top = self.top
        count, length = self._header.frames, int(top.Rows) * int(top.Columns) * (int(top.BitsAllocated) // 8)
        begin, declared = (0, stream.seek(0, 2)) if self._offset < 0 else _pixel_element(stream, self._offset, top)
        stream.seek(begin)
        if top.file_meta.TransferSyntaxUID.is_compressed and self._offset >= 0:
            offsets = (top.get("ExtendedOffsetTable"), top.get("ExtendedOffsetTableLengths"))
            extended = None if offsets[0] is None else offsets
            return get_frame(stream, index, number_of_frames=count, extended_offsets=extended)
        if declared < count * length:
            raise ValueError("fewer pixels than frames")
        stream.seek(begin + index * length)
        data = stream.read(length)
        if len(data) != length:
            raise EOFError("cut off")
        return data


def _pixel_element(stream: BinaryIO, offset: int, top: Dataset) -> tuple[int, int]:
    """(where the value of PixelData begins, its length); ``offset`` is where its tag begins."""
    implicit, little = top.original_encoding
    stream.seek(offset)
    if stream.read(4) != (b"\xe0\x7f\x10\x00" if little else b"\x7f\xe0\x00\x10"):
        raise ValueError("no integer pixels")
    if not implicit and stream.read(2) in _LONG_LENGTH_VRS:
        stream.seek(2, 1)
    elif not implicit:
        raise ValueError("pixel data has another VR")
    length = int.from_bytes(stream.read(4), "little" if little else "big")
    return stream.tell(), length


def _one(dataset: Dataset, keyword: str) -> Dataset | None:
    items = dataset.get(keyword)
    if not items:
        return None
    if len(items) != 1:
        raise ValueError(f"{keyword} has {len(items)} items")
    item: Dataset = items[0]
    return item


def frames(header: Header) -> tuple[Header, ...]:
    """One header per frame of a multi-frame file, in the order of the file.

    Parameters
    ----------
    header
        Of the file, from :func:`sccg_runtime.dicom.header.read_header`.

    Raises
    ------
    SeriesError
        The functional groups are damaged, or there are not as many as frames.
    """
    from pydicom.dataset import Dataset

    name = header.entry.name
    try:
        file = _File(header)
        if len(file.per_frame) != header.frames or header.frames > MAX_FRAMES:
            raise SeriesError(
                f"{name} says {header.frames} frames and describes {len(file.per_frame)}: replace or remove it"
            )
        found = []
        for number, groups in enumerate(file.per_frame, 1):
            own = Dataset()
            for source in (file.shared, groups):
                for keyword, wanted in GROUPS.items():
                    group = None if source is None else _one(source, keyword)
                    for attribute in wanted if group is not None else ():
                        if group is not None and attribute in group:
                            own[attribute] = group[attribute]
            frame = Frame(file, number, own)
            found.append(replace(header_of(header.entry, frame.attributes()), frame=frame))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise SeriesError(f"{name} has damaged frames ({type(error).__name__}): replace or remove it") from None
    return tuple(found)
