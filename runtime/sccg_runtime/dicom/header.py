"""What is read of every image before any pixel: the part of its header that series and geometry are decided by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sccg_runtime.dicom.source import Entry
from sccg_runtime.errors import SeriesError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
SUFFIXES = (".dcm", ".dicom", ".ima")
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "SyntheticData",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "WindowCenter",
    "WindowWidth",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Of one file. Identifiers are kept out of ``repr``.

    Attributes
    ----------
    entry
        The file.
    sop_class_uid, sop_instance_uid, study_uid, series_uid, frame_of_reference_uid, patient
        Identifiers; ``patient`` is compared only.
    modality, image_type, series_number, instance_number, synthetic
        (0008,0060), (0008,0008), (0020,0011), (0020,0013) and whether (0008,001C) is YES.
    frames, samples
        NumberOfFrames (1 where absent) and SamplesPerPixel.
    size
        (rows, columns).
    spacing_mm
        (row, column) PixelSpacing (0028,0030) in mm: between rows, between columns; None if absent.
    position_mm
        ImagePositionPatient (0020,0032), (x, y, z) in mm, patient coordinates (LPS), centre of the first pixel.
    orientation
        ImageOrientationPatient (0020,0037): direction along a row, then along a column.
    thickness_mm
        SliceThickness (0018,0050), or None.
    window
        First WindowCenter and WindowWidth, or None.
    """

    entry: Entry
    sop_class_uid: str = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    frame_of_reference_uid: str = field(repr=False)
    patient: tuple[str, str] = field(repr=False)
    modality: str
    image_type: tuple[str, ...]
    series_number: int | None
    instance_number: int | None
    synthetic: bool
    frames: int
    samples: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, float, float] | None = field(repr=False)
    orientation: tuple[float, ...] | None
    thickness_mm: float | None
    window: tuple[float, float] | None


def read_header(entry: Entry) -> Header | None:
    """Header of a file, or None if the file is not DICOM (and does not claim to be by its name).

    Raises
    ------
    SeriesError
        The file is called ``.dcm``, ``.dicom`` or ``.ima`` but is not DICOM, or its header is damaged.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with entry.open() as stream:
        preamble = stream.read(132)
        if preamble[128:] != b"DICM":
            if entry.name.lower().endswith(SUFFIXES):
                raise SeriesError(f"{entry.name} is not DICOM or is cut off: replace or remove it")
            return None
        stream.seek(0)
        try:
            dataset = dcmread(stream, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
            return _header(entry, dataset)
        except (InvalidDicomError, Exception) as error:  # pydicom raises many kinds on damaged files
            if isinstance(error, SeriesError):
                raise
            raise SeriesError(f"{entry.name} has a damaged header ({type(error).__name__}): replace or remove it") from None


def _header(entry: Entry, dataset: Dataset) -> Header:
    def text(keyword: str) -> str:
        return str(dataset.get(keyword) or "").strip()

    def whole(keyword: str, default: int | None = None) -> int | None:
        value = dataset.get(keyword)
        return default if value in (None, "") else int(value)

    center, width = (numbers(dataset.get(keyword), None) for keyword in ("WindowCenter", "WindowWidth"))
    spacing, position = numbers(dataset.get("PixelSpacing"), 2), numbers(dataset.get("ImagePositionPatient"), 3)
    thickness = numbers(dataset.get("SliceThickness"), 1)
    image_type = dataset.get("ImageType") or ()
    return Header(
        entry=entry,
        sop_class_uid=text("SOPClassUID"),
        sop_instance_uid=text("SOPInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        patient=(text("PatientID"), text("PatientName")),
        modality=text("Modality"),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(str(part) for part in image_type),
        series_number=whole("SeriesNumber"),
        instance_number=whole("InstanceNumber"),
        synthetic=text("SyntheticData") == "YES",
        frames=whole("NumberOfFrames", 1) or 1,
        samples=whole("SamplesPerPixel", 1) or 1,
        size=(whole("Rows", 0) or 0, whole("Columns", 0) or 0),
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=numbers(dataset.get("ImageOrientationPatient"), 6),
        thickness_mm=thickness[0] if thickness else None,
        window=(center[0], width[0]) if center and width and width[0] >= 1 else None,
    )


def numbers(value: Any, count: int | None) -> tuple[float, ...] | None:
    """Values of a decimal string as finite floats; None if absent, of another count, or not finite."""
    if value in (None, "", []):
        return None
    values = tuple(float(part) for part in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value]))
    if (count is not None and len(values) != count) or not all(math.isfinite(part) for part in values):
        return None
    return values
