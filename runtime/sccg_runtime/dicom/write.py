"""The derived series: CT Image Storage or MR Image Storage, marked as synthetic (PS3.3 A.3, A.4, C.7.6.1, C.12.1).

The class is that of the output modality, not Secondary Capture, which would lose the frame of reference. What is kept
of the source is an allow-list (:mod:`sccg_runtime.dicom.modules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sccg_runtime import __version__
from sccg_runtime.contract import Contract
from sccg_runtime.dicom.header import CT_IMAGE, MR_IMAGE, is_lossy, lossy_method
from sccg_runtime.dicom.modules import KEPT, LOSSY, TYPE_2, TYPE_2_CT, TYPE_2_MR
from sccg_runtime.errors import SeriesError
from sccg_runtime.intensity import FloatArray, unit_to_linear

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

PROGRAM = "sccg-runtime"
MR_WHITE = 4095
DISPLAY_WHITE = 255
SERIES_NUMBER_OFFSET = 9000
NOT_HU = "SYNTHETIC, NOT HU"
_MAX_DESCRIPTION = 1024  # VR ST
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # VRs that SpecificCharacterSet (0008,0005) applies to


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What all images of one output series have in common.

    Attributes
    ----------
    contract
        Of the bundle that ran.
    bundle_sha256
        SHA-256 of the bundle's file.
    engine
        Engine and version that ran, such as ``"OpenVINO 2026.4.1"``.
    layers
        Numbers of layers by the precision that they ran in, such as ``"bf16 8, int8 5"``: another CPU, other rounding.
    series_uid, frame_of_reference_uid
        Of the output; the second only where the source has none.
    started
        When the conversion began, local time.
    notes
        Sentences for DerivationDescription: how values were scaled, findings, warnings.
    """

    contract: Contract
    bundle_sha256: str
    engine: str
    layers: str
    series_uid: str
    frame_of_reference_uid: str | None
    started: datetime
    notes: tuple[str, ...]


def new_uid(*parts: str) -> str:
    """A UID that is made of ``parts`` only: the same parts, the same UID; other parts, another one."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=list(parts)))


def derived(source: Dataset, output: FloatArray, derivation: Derivation, frame_number: int | None = None) -> Dataset:
    """The output image of one source image.

    Parameters
    ----------
    source
        Attributes of the source image.
    output
        (rows, columns) float32 in [-1, 1] on the source grid.
    derivation
        What the series has in common.
    frame_number
        From 1, where the source is a frame of a multi-frame image.

    Returns
    -------
    pydicom.dataset.Dataset
        Complete, with file meta information for Explicit VR Little Endian. CT of kind ``hu``: int16, slope 1, intercept
        0, HU. CT of kind ``display``: levels 0..255 with Rescale Type US. MR: 0..4095, no rescale.

    Raises
    ------
    SeriesError
        The source's matrix and the output's shape differ, or an attribute of the source is damaged.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    if output.shape != (source.Rows, source.Columns):
        raise SeriesError(f"an output of {output.shape} pixels does not fit {source.Rows}x{source.Columns}")
    try:
        made = _attributes(source, derivation, frame_number)
    except (SeriesError, MemoryError):
        raise
    except Exception as error:  # pydicom reads an attribute when it is first used, and raises many kinds
        raise SeriesError(f"an attribute of the source is damaged ({type(error).__name__})") from None
    _set_pixels(made, output, derivation.contract)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _attributes(source: Dataset, derivation: Derivation, frame_number: int | None) -> Dataset:
    """All but pixels and file meta information."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for keyword in KEPT:
        if keyword in source:
            made[keyword] = _without_private(source[keyword])
            if _is_garbled(source[keyword]):
                raise SeriesError(f"{keyword} does not fit the SpecificCharacterSet that the file declares: correct it")
    is_ct = derivation.contract.output_intensity.modality == "CT"
    for keyword in TYPE_2 + (TYPE_2_CT if is_ct else TYPE_2_MR):
        if keyword not in made:
            setattr(made, keyword, None)
    if is_lossy(source):
        made.LossyImageCompression = "01"
        for keyword in LOSSY:
            if keyword in source:
                made[keyword] = source[keyword]
        method = lossy_method(source)
        if method is not None and "LossyImageCompressionMethod" not in made:
            made.LossyImageCompressionMethod = method
    made.SOPClassUID = CT_IMAGE if is_ct else MR_IMAGE
    origin = str(source.SOPInstanceUID) + ("" if frame_number is None else f" {frame_number}")
    made.SOPInstanceUID = new_uid(derivation.series_uid, origin)
    if derivation.frame_of_reference_uid is not None:
        made.FrameOfReferenceUID = derivation.frame_of_reference_uid
    _describe(made, source, derivation)
    _say_where_from(made, source, derivation, frame_number)
    _keep_text(made)
    return made


def _without_private(element: DataElement) -> DataElement:
    """The same element; of a sequence, a copy without private attributes: the source's is left as it is."""
    if element.VR != "SQ":
        return element
    copied = deepcopy(element)
    for item in copied.value:
        item.remove_private_tags()
    return copied


def _keep_text(made: Dataset) -> None:
    """Go over to UTF-8 where the source's character set, as pydicom writes it, would change a letter.

    It reads what it cannot write: katakana of ISO_IR 13, or a second line of ISO 2022 IR 149.
    """
    text = _text(made)
    if "".join(text).isascii() or _text(_as_written(made)) == text:
        return
    made.pop("SpecificCharacterSet", None)  # setting the value would change the element that is also the source's
    made.SpecificCharacterSet = "ISO_IR 192"
    if _text(_as_written(made)) != text:
        raise SeriesError("text to be kept cannot be written in its SpecificCharacterSet, nor in UTF-8")


def _text(dataset: Dataset) -> list[str]:
    """Of an element that says nothing, and without padding, which is gone once it is read again."""
    values = (element.value for element in dataset.iterall() if element.VR in _TEXT)
    return ["" if value is None else str(value).rstrip(" \0") for value in values]


def _as_written(made: Dataset) -> Dataset:
    """A copy of ``made``, written and read again: pydicom keeps in a name what it wrote of it first."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, deepcopy(made))
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit_VR=False, is_little_endian=True)


def _is_garbled(element: DataElement) -> bool:
    """Whether letters could not be read, which pydicom replaces: written again, they would name another patient."""
    if element.VR == "SQ":
        return any(_is_garbled(inner) for item in element.value for inner in item)
    return "\ufffd" in str(element.value)


def write_file(path: Path, dataset: Dataset) -> None:
    """Write a dataset from :func:`derived` as a DICOM file (PS3.10) and sync it to the disk.

    Raises
    ------
    SeriesError
        An attribute that was carried over from the source cannot be written.
    OSError
        The disk is full, and the like.
    """
    import os

    from pydicom import dcmwrite

    with path.open("xb") as file:
        try:
            dcmwrite(file, dataset, enforce_file_format=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            kind = type(error).__name__
            raise SeriesError(f"an attribute of the source cannot be carried over ({kind})") from None
        file.flush()
        os.fsync(file.fileno())


def series_description(contract: Contract) -> str:
    """SeriesDescription (0008,103E), at most 64 characters: says SYNTHETIC first, then what it is not."""
    source, target = contract.input_intensity.modality, contract.output_intensity.modality
    start = NOT_HU if contract.output_intensity.kind == "display" else "SYNTHETIC"
    if contract.simulated_data:
        start += ", SIMULATED TRAINING"
    between = " " if start == "SYNTHETIC" else ": "
    return _ascii(f"{start}{between}{target} from {source} ({contract.student})")[:64]


def derivation_description(derivation: Derivation) -> str:
    """DerivationDescription (0008,2111), at most 1024 characters of ASCII."""
    contract = derivation.contract
    source, target = contract.input_intensity.modality, contract.output_intensity.modality
    sentences = [
        f"Synthetic {target} computed from {source} by a neural network, slice by slice; not an acquired image.",
        f"sccg-runtime {__version__}, generator {contract.student}, {derivation.engine}, "
        f"{contract.precision_asked} (layers {derivation.layers}), bundle SHA-256 {derivation.bundle_sha256}.",
        *derivation.notes,
    ]
    text = _ascii(" ".join(sentences))
    return text if len(text) <= _MAX_DESCRIPTION else text[: _MAX_DESCRIPTION - 4] + " ..."


def _describe(made: Dataset, source: Dataset, derivation: Derivation) -> None:
    contract = derivation.contract
    target = contract.output_intensity.modality
    day, time = derivation.started.strftime("%Y%m%d"), derivation.started.strftime("%H%M%S")
    made.SyntheticData = "YES"
    made.Modality = target
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if target == "CT" else "OTHER", "SYNTHETIC"]
    made.SeriesInstanceUID = derivation.series_uid
    made.SeriesNumber = min(SERIES_NUMBER_OFFSET + abs(int(source.get("SeriesNumber") or 0)), 2**31 - 1)
    made.SeriesDescription = series_description(contract)
    for keyword in ("InstanceCreation", "Series", "Content"):
        setattr(made, f"{keyword}Date", day)
        setattr(made, f"{keyword}Time", time)
    made.Manufacturer = "sccg-compress developers"
    made.ManufacturerModelName = PROGRAM
    made.SoftwareVersions = __version__
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = derivation_description(derivation)
    if target == "MR":
        made.ScanningSequence = "RM"
        made.SequenceVariant = "NONE"


def _say_where_from(made: Dataset, source: Dataset, derivation: Derivation, frame_number: int | None) -> None:
    """Source image, kind of derivation, the scanner and this program (C.7.6.1.4, C.12.1.1.5)."""
    from pydicom.dataset import Dataset

    contract = derivation.contract
    meaning = f"Synthetic {contract.output_intensity.modality} from {contract.input_intensity.modality}"
    made.DerivationCodeSequence = [_code(f"SYN-{contract.direction.upper()}", "99SCCG", meaning)]
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame_number is not None:
        reference.ReferencedFrameNumber = frame_number
    reference.SpatialLocationsPreserved = "YES"
    reference.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
    made.SourceImageSequence = [reference]
    program = Dataset()
    program.PurposeOfReferenceCodeSequence = [_code("109100", "DCM", "Synthesizing Equipment")]
    program.Manufacturer = "sccg-compress developers"
    program.ManufacturerModelName = _ascii(f"sccg-runtime, generator {contract.student}")[:64]
    program.SoftwareVersions = [__version__, _ascii(derivation.engine)[:64]]
    program.ContributionDateTime = derivation.started.strftime("%Y%m%d%H%M%S")
    program.ContributionDescription = f"Bundle SHA-256 {derivation.bundle_sha256}"
    items = [program]
    if source.get("Manufacturer"):
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [_code("109101", "DCM", "Acquisition Equipment")]
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions"):
            if source.get(keyword):
                scanner[keyword] = source[keyword]
        items.insert(0, scanner)
    made.ContributingEquipmentSequence = items


def stored_values(output: FloatArray, contract: Contract) -> npt.NDArray[np.integer[Any]]:
    """Pixels as they are written: int16 HU for CT of kind ``hu``; else uint16, levels 0..255 for CT and 0..4095 for MR.

    Parameters
    ----------
    output
        (rows, columns) float32 in [-1, 1].
    contract
        Of the bundle that ran.
    """
    intensity = contract.output_intensity
    if intensity.kind == "hu":
        low, high = intensity.window_hu or (0, 0)
    else:
        low, high = 0, DISPLAY_WHITE if intensity.modality == "CT" else MR_WHITE
    dtype = np.int16 if intensity.kind == "hu" else np.uint16
    limits = np.iinfo(dtype)
    return np.clip(np.rint(unit_to_linear(output, low, high)), limits.min, limits.max).astype(dtype)


def _set_pixels(made: Dataset, output: FloatArray, contract: Contract) -> None:
    """Pixels, their meaning and new windows (C.7.6.3, C.8.2.1, C.11.2)."""
    intensity = contract.output_intensity
    made.Rows, made.Columns = output.shape
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 16
    signed = intensity.kind == "hu"
    made.BitsStored = 16 if signed else 12
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(signed)
    windows: Sequence[tuple[int, int, str]]
    if intensity.kind == "hu":
        windows = ((40, 80, "BRAIN"), (600, 2800, "BONE"))
        made.RescaleType = "HU"
    elif intensity.modality == "CT":
        windows = ((128, 256, "AS LEARNED"),)
        made.RescaleType = "US"
    else:
        windows = ((2048, 4096, "FULL RANGE"),)
    if intensity.modality == "CT":
        made.RescaleSlope, made.RescaleIntercept = "1", "0"
    made.WindowCenter = [str(window[0]) for window in windows]
    made.WindowWidth = [str(window[1]) for window in windows]
    made.WindowCenterWidthExplanation = [window[2] for window in windows]
    stored = stored_values(output, contract)
    made.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    made["PixelData"].VR = "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _ascii(text: str) -> str:
    """Printable ASCII without the backslash, which separates values; other characters become ``?``."""
    return "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in text)
