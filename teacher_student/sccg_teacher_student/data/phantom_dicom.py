"""Writes the phantom to disk: per patient a CT and an MR series as complete DICOM, on one frame of reference."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from sccg_runtime.errors import InputError
from sccg_runtime.files import whole_folder
from sccg_runtime.intensity import Modality
from sccg_teacher_student.data.cases import SPLITS
from sccg_teacher_student.data.phantom import PhantomCase, case_name, phantom_case
from sccg_teacher_student.data.phantom_anatomy import Z_RANGE_MM
from sccg_teacher_student.data.phantom_tissues import ECHO_TIME_MS, REPETITION_TIME_MS
from sccg_teacher_student.data.reader import visible
from sccg_teacher_student.data.settings import SETTINGS_NAME

_DATE, _TIME = "20200101", "120000"
_SIMULATED = "SIMULATED phantom, not a patient"
_SETTINGS = """\
# Simulated heads (sccg-compress phantom, seed {seed}): not patients
simulated = true
spacing_mm = {spacing}

[mr]
kind = "percentile"
percentile = 99.5
foreground_above = 0.0588
level = 0.9216

[ct]
kind = "hu"
low_hu = -1024
high_hu = 2000
"""


def split_of(index: int, patients: int) -> str:
    """Split folder of a patient: about two thirds train, the rest half val and half test; the first always trains."""
    held = max(1, patients // 6) if patients >= 3 else 0
    if index >= patients - held:
        return "test"
    return "val" if index >= patients - 2 * held else "train"


def write_phantom(
    out: Path,
    *,
    patients: int = 12,
    slices: int = 24,
    size: int = 256,
    seed: int = 0,
    split: bool = True,
    force: bool = False,
) -> Path:
    """Write ``patients`` simulated patients as paired DICOM series; whole or not at all, the same bytes every time.

    Gives ``OUT/train/case01/ct/0001.dcm`` and so on (``OUT/case01/...`` without ``split``) and ``OUT/sccg.toml``. From
    three patients on there are ``val/`` and ``test/`` too; fewer all lie in ``train/``.

    Parameters
    ----------
    out
        Folder to make.
    patients, slices
        How many, and slices in each.
    size
        Rows and columns, a multiple of 4.
    seed
        Another seed gives other patients.
    force
        Replace ``out`` if it is an earlier phantom; anything else is never replaced.

    Returns
    -------
    ``out``.

    Raises
    ------
    InputError
        ``out`` exists, or a number is out of range.

    Example
    -------
    >>> write_phantom(Path("phantom"), patients=3, slices=8, size=128)
    """
    if patients < 1:
        raise InputError("phantom: there must be at least one patient")
    if not 1 <= slices <= 200:
        raise InputError(f"phantom: {slices} slices are not between 1 and 200")
    if out.exists() and out.samefile("."):
        raise InputError(f"{out} is the current folder: name one in it")
    if out.exists() and not _is_empty(out):
        if not force:
            raise InputError(f"{out}: exists already; choose another folder, or replace a phantom with --force")
        _check_earlier(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out.resolve(), replaceable=_check_earlier if force else None) as temporary:
        spacing = "unknown"
        for index in range(patients):
            case = phantom_case(index, seed, (size, size), slices)
            spacing = f"[{case.spacing_mm[0]:.6g}, {case.spacing_mm[1]:.6g}]"
            place = temporary / split_of(index, patients) if split else temporary
            _write_case(place / case_name(index), case, index, f"{seed}/{patients}/{slices}/{size}")
        (temporary / SETTINGS_NAME).write_text(_SETTINGS.format(seed=seed, spacing=spacing), encoding="utf-8")
    return out


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _check_earlier(out: Path) -> None:
    """InputError unless the folder is empty or holds a phantom and nothing else."""
    if _is_empty(out):
        return
    settings = out / SETTINGS_NAME
    head = _SETTINGS.partition("{")[0]
    if not settings.is_file() or not settings.read_text(encoding="utf-8", errors="replace").startswith(head):
        raise InputError(f"{out}: is not a phantom ({SETTINGS_NAME} does not begin as one's does); not replaced")
    own = re.compile("|".join((re.escape(SETTINGS_NAME), *SPLITS, r"case\d+")))
    if others := [path.name for path in visible(out) if not own.fullmatch(path.name)]:
        raise InputError(f"{out}: holds {others[0]}, which is no part of a phantom; not replaced")


def _write_case(folder: Path, case: PhantomCase, index: int, recipe: str) -> None:
    for number, modality in ((1, "CT"), (2, "MR")):
        place = folder / modality.lower()
        place.mkdir(parents=True)
        volume = case.ct_hu if modality == "CT" else case.mr
        for row in range(len(volume)):
            dataset = _slice(case, index, row, "CT" if modality == "CT" else "MR", number, recipe)
            dataset.save_as(place / f"{row + 1:04d}.dcm", enforce_file_format=True)


def _slice(case: PhantomCase, index: int, row: int, modality: Modality, series: int, recipe: str) -> FileDataset:
    pixels = (case.ct_hu if modality == "CT" else case.mr)[row]
    rows, columns = pixels.shape
    sop_class = CTImageStorage if modality == "CT" else MRImageStorage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = _uid(recipe, index, modality, f"slice {row}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    meta.ImplementationVersionName = "SCCG_PHANTOM"
    d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    d.SpecificCharacterSet = "ISO_IR 100"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "OTHER"]
    d.SOPClassUID, d.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    _describe_patient_and_study(d, index, modality, series, recipe)
    d.InstanceNumber = row + 1
    d.ImageComments = _SIMULATED
    d.FrameOfReferenceUID = _uid(recipe, index, "frame of reference")
    d.PositionReferenceIndicator = ""
    height = Z_RANGE_MM[0] + (row + 0.5) * case.slice_spacing_mm
    corner = (-(columns - 1) / 2 * case.spacing_mm[1], -(rows - 1) / 2 * case.spacing_mm[0], height)
    d.ImagePositionPatient = [f"{value:.6g}" for value in corner]
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.PixelSpacing = [f"{value:.6g}" for value in case.spacing_mm]
    d.SliceThickness = f"{case.slice_spacing_mm:.6g}"
    d.SliceLocation = f"{height:.6g}"
    if modality == "CT":
        d.RescaleIntercept, d.RescaleSlope, d.RescaleType = 0, 1, "HU"
        d.KVP, d.AcquisitionNumber = 120, 1
        d.WindowCenter, d.WindowWidth = 40, 80
    else:
        _describe_mr(d, case.slice_spacing_mm)
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = rows, columns
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.PixelRepresentation = 1
    d.BurnedInAnnotation = "NO"
    d.PixelData = pixels.astype("<i2").tobytes()
    return d


def _describe_patient_and_study(d: Dataset, index: int, modality: Modality, series: int, recipe: str) -> None:
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = _DATE
    d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = _TIME
    d.AccessionNumber = ""
    d.Modality = modality
    d.Manufacturer = "sccg-compress"
    d.ManufacturerModelName = "procedural head"
    d.ReferringPhysicianName = ""
    d.StudyDescription = "SIMULATED head phantom"
    d.SeriesDescription = f"SIMULATED {'CT' if modality == 'CT' else 'T2w MR'}"
    d.PatientName = f"Phantom^{index + 1:02d}"
    d.PatientID = f"PHANTOM{index + 1:02d}"
    d.PatientBirthDate = ""
    d.PatientSex = ""
    d.PatientPosition = "HFS"
    d.BodyPartExamined = "HEAD"
    d.StudyInstanceUID = _uid(recipe, index, "study")
    d.SeriesInstanceUID = _uid(recipe, index, modality, "series")
    d.StudyID = f"{index + 1}"
    d.SeriesNumber = series


def _describe_mr(d: Dataset, slice_spacing_mm: float) -> None:
    d.ScanningSequence = "SE"
    d.SequenceVariant = "NONE"
    d.ScanOptions = ""
    d.MRAcquisitionType = "2D"
    d.RepetitionTime, d.EchoTime = REPETITION_TIME_MS, ECHO_TIME_MS
    d.EchoTrainLength = 1
    d.MagneticFieldStrength = "1.5"
    d.SpacingBetweenSlices = f"{slice_spacing_mm:.6g}"


def _uid(*parts: object) -> UID:
    """A UID below 2.25 (DICOM PS3.5 B.2) that depends on ``parts`` only."""
    digest = hashlib.sha256("/".join(("sccg phantom", *map(str, parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
