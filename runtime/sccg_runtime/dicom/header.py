"""What is read of every image before any pixel: the part of its header that series and geometry are decided by."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from sccg_runtime.dicom.source import HEAD_BYTES, Entry
from sccg_runtime.errors import SeriesError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from sccg_runtime.dicom.enhanced import Frame

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # the second: legacy converted
ENHANCED_MR = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
ENHANCED = ENHANCED_CT + ENHANCED_MR
SUFFIXES = (".dcm", ".dicom", ".ima")
# Baseline and extended JPEG and near-lossless JPEG-LS lose; JPEG 2000 and HTJ2K may, unless the image denies it.
# With the method's name (PS3.3 C.7.6.1.1.5.1).
_LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
_PERHAPS_LOSSY_SYNTAXES = {"1.2.840.10008.1.2.4.91": "ISO_15444_1", "1.2.840.10008.1.2.4.203": "ISO_15444_15"}
_DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 256 * 1024**2
_CHUNK_BYTES = 1024**2
_META_LENGTH = b"\x02\0\0\0UL\4\0"  # (0002,0000), FileMetaInformationGroupLength
_MAX_META_BYTES = 64 * 1024
# (7FE0,0008), (7FE0,0009) and (7FE0,0010), in both byte orders.
_PIXEL_TAGS = frozenset(
    [bytes((0xE0, 0x7F, last, 0)) for last in (8, 9, 16)] + [bytes((0x7F, 0xE0, 0, last)) for last in (8, 9, 16)]
)
_SEQUENCE_KEYWORDS = (
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PulseSequenceName",
    "ProtocolName",
    "SeriesDescription",
)
_SETTINGS = ("ScanningSequence", "ConvolutionKernel", "ContrastBolusAgent")
_TYPE_KEYWORDS = ("ImageType", "ComplexImageComponent", "VolumeBasedCalculationTechnique")
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "Modality",
    *_TYPE_KEYWORDS,
    "SeriesNumber",
    *_SEQUENCE_KEYWORDS,
    "ConcatenationUID",
    "InConcatenationTotalNumber",
    "SyntheticData",
    "RescaleSlope",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "KVP",
    *_SETTINGS,
    "ManufacturerModelName",
    "EchoTime",
    "WindowCenter",
    "WindowWidth",
    "BurnedInAnnotation",
    "LossyImageCompression",
)


_GE_CREATOR, _GE_IMAGE_TYPE = "00430010", "0043102F"
_GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}  # 0: magnitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Of one file. Identifiers are kept out of ``repr``.

    Attributes
    ----------
    entry
        The file.
    sop_class_uid, sop_instance_uid, study_uid, series_uid, frame_of_reference_uid, patient
        Identifiers; ``patient`` is compared only.
    modality, image_type, series_number
        (0008,0060), (0008,0008) with ComplexImageComponent (0008,9208) and VolumeBasedCalculationTechnique
        (0008,9207), (0020,0011).
    rescaled
        Whether there is a RescaleSlope (0028,1053).
    settings
        What else all images of a series should have alike: image type (from the third value on), ScanningSequence,
        ConvolutionKernel, KVP and ContrastBolusAgent, as text, by keyword.
    synthetic, burned_in, lossy
        Whether SyntheticData (0008,001C) or BurnedInAnnotation (0028,0301) is YES; whether the pixels were lossy
        compressed at any time (LossyImageCompression (0028,2110), or the transfer syntax).
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
        SliceThickness (0018,0050), or None where it is absent or not above 0.
    between_mm
        SpacingBetweenSlices (0018,0088), or None where it is absent or not above 0.
    echo_time_ms
        EchoTime (0018,0081), or EffectiveEchoTime (0018,9082) of a frame; None if absent.
    window
        First WindowCenter and WindowWidth, or None.
    maker
        ManufacturerModelName (0008,1090).
    description
        SeriesDescription (0008,103E).
    sequence
        Words that name the MR sequence: ScanningSequence, SequenceVariant, SequenceName, PulseSequenceName,
        ProtocolName, SeriesDescription.
    concatenation
        ConcatenationUID and how many files belong to it, where an Enhanced image was split; else None.
    frame
        Which frame of a multi-frame file this is; None for a file of its own.
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
    rescaled: bool
    synthetic: bool
    burned_in: bool
    lossy: bool
    frames: int
    samples: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, float, float] | None = field(repr=False)
    orientation: tuple[float, ...] | None
    thickness_mm: float | None
    echo_time_ms: float | None
    window: tuple[float, float] | None
    between_mm: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    maker: str = ""
    description: str = field(default="", repr=False)
    sequence: tuple[str, ...] = field(default=(), repr=False)
    concatenation: tuple[str, int] | None = field(default=None, repr=False)
    frame: Frame | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Base name of the file, and which frame of it; for messages."""
        return self.entry.name if self.frame is None else f"{self.entry.name} frame {self.frame.number}"


def read_header(entry: Entry) -> Header | None:
    """Header of a file, or None if the file is not DICOM (and does not claim to be by its name).

    Raises
    ------
    SeriesError
        The file is called ``.dcm``, ``.dicom`` or ``.ima`` but is not DICOM, its header is damaged, or it is deflated
        and inflates to more than 256 MiB.
    """
    from pydicom import dcmread

    if entry.head()[128:] != b"DICM":
        if entry.name.lower().endswith(SUFFIXES):
            raise SeriesError(f"{entry.name} is not DICOM or is cut off: replace or remove it")
        return None
    with entry.open() as stream:
        try:
            stream.seek(HEAD_BYTES)
            _check_inflated_size(stream, entry.name)
            stream.seek(0)
            dataset = dcmread(stream, stop_before_pixels=True, specific_tags=[*_KEYWORDS, _GE_CREATOR, _GE_IMAGE_TYPE])
            header = header_of(entry, dataset)
            complete = stream.read(4) in _PIXEL_TAGS or str(dataset.file_meta.TransferSyntaxUID) == DEFLATED
        except (SeriesError, MemoryError):
            raise
        except Exception as error:  # pydicom raises many kinds on damaged files, a disk its own
            kind = type(error).__name__
            raise SeriesError(f"{entry.name} has a damaged header ({kind}): replace or remove it") from None
    # A header that ends early may have lost or shortened its series UID: it would leave its series without a trace.
    if header.sop_class_uid != _DICOMDIR and not header.series_uid:
        raise SeriesError(f"{entry.name} has no SeriesInstanceUID, or is cut off: replace or remove it")
    if header.sop_class_uid in (CT_IMAGE, MR_IMAGE, *ENHANCED) and not complete:
        raise SeriesError(f"{entry.name} ends before its pixels: replace or remove it")
    return header


def _check_inflated_size(stream: BinaryIO, name: str) -> None:
    """Refuse a deflated file (PS3.5 A.5) that a few bytes make as large as the memory; pydicom inflates it at once.

    ``stream`` stands behind the preamble and is moved.
    """
    head = stream.read(12)
    length = int.from_bytes(head[8:], "little") if head[:8] == _META_LENGTH else None
    if DEFLATED.encode() not in stream.read(_MAX_META_BYTES if length is None else min(length, _MAX_META_BYTES)):
        return
    if length is None or length > _MAX_META_BYTES:
        raise ValueError("a deflated file without the length of its meta information")
    inflater, total, data = zlib.decompressobj(-zlib.MAX_WBITS), 0, stream.read(_CHUNK_BYTES)
    while data and not inflater.eof:
        total += len(inflater.decompress(data, _CHUNK_BYTES))
        if total > MAX_INFLATED_BYTES:
            raise SeriesError(
                f"{name} inflates to more than {MAX_INFLATED_BYTES // 1024**2} MiB: more than a slice has"
            )
        data = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)


def header_of(entry: Entry, dataset: Dataset) -> Header:
    """Header from attributes; what pydicom raises on damaged ones comes through."""

    def text(keyword: str) -> str:
        return str(dataset.get(keyword) or "").strip()

    def whole(keyword: str, default: int | None = None) -> int | None:
        value = dataset.get(keyword)
        return default if value in (None, "") else int(value)

    def unneeded(keyword: str, count: int | None = 1) -> tuple[float, ...] | None:
        """Of an attribute that a series can do without: None where it is no number."""
        try:
            return numbers(dataset.get(keyword), count)
        except (TypeError, ValueError, OverflowError):
            return None

    center, width = (unneeded(keyword, None) for keyword in ("WindowCenter", "WindowWidth"))
    spacing, position = numbers(dataset.get("PixelSpacing"), 2), numbers(dataset.get("ImagePositionPatient"), 3)
    thickness, between = unneeded("SliceThickness"), unneeded("SpacingBetweenSlices")
    echo_time = unneeded("EffectiveEchoTime") or unneeded("EchoTime")
    image_type = tuple(word for keyword in _TYPE_KEYWORDS for word in words(dataset.get(keyword)))
    return Header(
        entry=entry,
        sop_class_uid=text("SOPClassUID") or str(dataset.file_meta.get("MediaStorageSOPClassUID") or ""),
        sop_instance_uid=text("SOPInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        patient=(text("PatientID"), text("PatientName")),
        modality=text("Modality"),
        image_type=image_type + _ge_component(dataset),
        settings={
            "ImageType": " ".join(image_type[2:]),
            "KVP": str(unneeded("KVP")),
            **{keyword: text(keyword) for keyword in _SETTINGS},
        },
        series_number=None if (number := unneeded("SeriesNumber")) is None else int(number[0]),
        rescaled="RescaleSlope" in dataset,
        synthetic=text("SyntheticData") == "YES",
        burned_in=text("BurnedInAnnotation") == "YES",
        lossy=is_lossy(dataset),
        frames=whole("NumberOfFrames", 1) or 1,
        samples=whole("SamplesPerPixel", 1) or 1,
        size=(whole("Rows", 0) or 0, whole("Columns", 0) or 0),
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=numbers(dataset.get("ImageOrientationPatient"), 6),
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        between_mm=between[0] if between and between[0] > 0 else None,
        echo_time_ms=echo_time[0] if echo_time else None,
        window=(center[0], width[0]) if center and width and width[0] >= 1 else None,
        maker=text("ManufacturerModelName"),
        description=text("SeriesDescription"),
        sequence=tuple(word for keyword in _SEQUENCE_KEYWORDS for word in words(dataset.get(keyword))),
        concatenation=(text("ConcatenationUID"), whole("InConcatenationTotalNumber", 0) or 0)
        if text("ConcatenationUID")
        else None,
    )


def _ge_component(dataset: Dataset) -> tuple[str, ...]:
    """What scanners of GE say in a private attribute instead of ImageType: phase, real or imaginary part."""
    if _GE_IMAGE_TYPE not in dataset or _GE_CREATOR not in dataset:
        return ()
    is_ge = str(dataset[_GE_CREATOR].value).strip() == "GEMS_PARM_01"
    found = dataset[_GE_IMAGE_TYPE].value
    return (_GE_COMPONENTS[found],) if is_ge and found in (1, 2, 3) else ()


def is_lossy(dataset: Dataset) -> bool:
    """Whether the pixels were, or may have been, lossy compressed at any time (PS3.3 C.7.6.1.1.5)."""
    return str(dataset.get("LossyImageCompression") or "").strip() == "01" or lossy_method(dataset) is not None


def lossy_method(dataset: Dataset) -> str | None:
    """Value for LossyImageCompressionMethod (0028,2114) by the transfer syntax; None where that loses nothing."""
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", ""))
    denied = str(dataset.get("LossyImageCompression") or "").strip() == "00"
    return _LOSSY_SYNTAXES.get(syntax) or (None if denied else _PERHAPS_LOSSY_SYNTAXES.get(syntax))


def words(value: Any) -> tuple[str, ...]:
    """Values of a string attribute, however many; none where it is absent or empty."""
    if value in (None, "", []):
        return ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def numbers(value: Any, count: int | None) -> tuple[float, ...] | None:
    """Values of a decimal string as finite floats; None if absent, of another count, or not finite."""
    if value in (None, "", []):
        return None
    values = tuple(
        float(part) for part in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])
    )
    if (count is not None and len(values) != count) or not all(math.isfinite(part) for part in values):
        return None
    return values
