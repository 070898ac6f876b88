"""A tiny bundle and synthetic DICOM series, made from nothing but sccg-runtime's own dependencies."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from sccg_runtime.bundle import BUNDLE_MODEL_MEMBERS, read_bundle
from sccg_runtime.contract import Contract
from sccg_runtime.convert import convert_series
from sccg_runtime.engine import import_openvino
from sccg_runtime.files import sha256
from sccg_runtime.intensity import Intensity
from sccg_runtime.statistics import InputStatistics, Range

# A parent that ignores Ctrl-C hands that down (nohup, background jobs); the tests that send it need the default back.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("sccg", deadline=None, database=None, derandomize=True)
settings.load_profile("sccg")

MR = Intensity(modality="MR", kind="percentile", percentile=99.5, foreground_above=0.06, level=0.92)
CT_HU = Intensity(modality="CT", kind="hu", low_hu=-1024, high_hu=2000)
CT_DISPLAY = Intensity(modality="CT", kind="display")
PATIENT_NAME = "Muster^Änne"
PATIENT_ID = "PAT-4711"
STATISTICS = InputStatistics(
    slices=10,
    histogram=tuple(1 / 32 for _ in range(32)),
    sharpness=Range(p5=0.0, median=0.5, p95=10.0),
    foreground_share=Range(p5=0.0, median=0.5, p95=1.0),
    background=Range(p5=0.0, median=2.0, p95=15.0),
)


def contract(**changes: Any) -> Contract:
    """A valid mr2ct contract; ``changes`` replace fields."""
    base = Contract(
        format_version=1,
        direction="mr2ct",
        input_intensity=MR,
        output_intensity=CT_HU,
        trained_size=(64, 64),
        trained_spacing_mm=None,
        engine_size=(64, 64),
        stride=8,
        target="openvino",
        precision_asked="fp32",
        precision_ran={"fp32": 2},
        engine="OpenVINO",
        engine_version="2026.4.1",
        opset=None,
        student="tiny",
        generator={"family": "tiny"},
        generator_sha256="0" * 64,
        teacher_sha256="1" * 64,
        calibration=None,
        input_statistics=STATISTICS,
        drift={"to_teacher_psnr_db": 40.0},
        drift_measured_on="engine",
        simulated_data=False,
        members={},
        created_by="tests",
        unknown={"trained_spacing_mm": "a test", "opset": "no ONNX on the way", "calibration": "fp32"},
    )
    changed = {"unknown": {**base.unknown, **changes.pop("unknown", {})}, **changes}
    unknown = {
        name: reason for name, reason in changed["unknown"].items() if changed.get(name, getattr(base, name)) is None
    }
    return replace(base, **{**changed, "unknown": unknown})


def ct2mr(**changes: Any) -> Contract:
    """A valid ct2mr contract."""
    return contract(**{"direction": "ct2mr", "input_intensity": CT_HU, "output_intensity": MR, **changes})


def model(folder: Path, size: tuple[int, int], kind: str = "identity") -> tuple[bytes, bytes]:
    """IR of a two-convolution network: ``identity``, ``negative``, ``blur`` or ``nan``."""
    openvino = import_openvino()
    ops = openvino.opset13
    parameter = ops.parameter([1, 1, *size], np.float32, name="image")
    first = np.zeros((2, 1, 3, 3), np.float32)
    first[0, 0, 1, 1] = 1
    second = np.zeros((1, 2, 3, 3), np.float32)
    second[0, 0, 1, 1] = {"identity": 1, "negative": -1, "blur": 0, "nan": np.nan}[kind]
    if kind == "blur":
        second[0, 0] = 1 / 9
    hidden = ops.convolution(parameter, ops.constant(first), [1, 1], [1, 1], [1, 1], [1, 1])
    output = ops.convolution(hidden, ops.constant(second), [1, 1], [1, 1], [1, 1], [1, 1])
    xml = folder / f"{kind}-{size[0]}x{size[1]}.xml"
    openvino.serialize(openvino.Model([output], [parameter], kind), str(xml))
    return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


def golden(size: tuple[int, int], sign: float = 1.0, error: float = 0.0) -> bytes:
    """golden.npz of an identity (``sign`` 1) or negative (-1) network; ``error`` is added to what the engine gave."""
    inputs = np.random.default_rng(1).uniform(-1, 1, (2, 1, *size)).astype(np.float32)
    stream = io.BytesIO()
    engine = (sign * inputs + error).astype(np.float32)
    np.savez(stream, inputs=inputs, fp32_outputs=sign * inputs, engine_outputs=engine)
    return stream.getvalue()


def pack(path: Path, described: Contract, members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a bundle with the right hashes."""
    whole = replace(described, members={name: sha256(content) for name, content in members.items()})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"contract.json": whole.to_json().encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, compression)
    return path


def members_for(folder: Path, described: Contract, kind: str = "identity", error: float = 0.0) -> dict[str, bytes]:
    """All members but the contract."""
    parts: tuple[bytes, ...] = (b"not a real engine",)
    if described.target == "openvino":
        parts = model(folder, described.engine_size, kind)
    return {
        **dict(zip(BUNDLE_MODEL_MEMBERS[described.target], parts, strict=True)),
        "golden.npz": golden(described.engine_size, -1.0 if kind == "negative" else 1.0, error),
        "drift.json": json.dumps({"to_teacher_psnr_db": 40.0}).encode(),
    }


def head(rows: int = 64, columns: int = 64, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A disc with texture in [0, 1], 0 outside."""
    y, x = np.mgrid[0:rows, 0:columns]
    inside = ((y - rows / 2) / (0.4 * rows)) ** 2 + ((x - columns / 2) / (0.35 * columns)) ** 2 < 1
    texture = np.random.default_rng(seed).uniform(0.3, 0.9, (rows, columns))
    return np.where(inside, texture, 0.0)


def dataset(modality: str, index: int, stored: np.ndarray[Any, Any], **changes: Any) -> Any:
    """A classic CT or MR image that dciodvfy finds no error in; a value of None removes an attribute."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "OTHER"]
    made.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{2 if modality == 'CT' else 4}"
    made.SOPInstanceUID = generate_uid(entropy_srcs=[modality, str(index)])
    made.StudyDate, made.StudyTime, made.ContentDate, made.ContentTime = "20260102", "101112", "20260102", "101112"
    made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = "A-99", "S-1", "Doctor^Secret"
    made.Modality, made.Manufacturer, made.ManufacturerModelName = modality, "ACME", "Scan 1"
    made.SoftwareVersions, made.SeriesDescription, made.StudyDescription = "3.1", "HEAD", "Kopf für Änne"
    made.PatientName, made.PatientID = PATIENT_NAME, PATIENT_ID
    made.PatientBirthDate, made.PatientSex = "19700101", "F"
    made.BodyPartExamined, made.PatientPosition = "HEAD", "HFS"
    made.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=["series", modality])
    made.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    made.PositionReferenceIndicator = ""
    made.SeriesNumber, made.AcquisitionNumber, made.InstanceNumber = 3, 1, index + 1
    made.ImagePositionPatient = [-100, -110, -40.5 + 5 * index]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness, made.SliceLocation = [1.5, 1.5], 5, -40.5 + 5 * index
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.WindowCenter, made.WindowWidth = 40, 80
    made.add_new((0x0019, 0x0010), "LO", "ACME PRIVATE")
    made.add_new((0x0019, 0x1001), "LO", "Private Änne")
    made.OperatorsName = "Operator^Olga"
    if modality == "CT":
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = 1, -1024, "HU"
        made.KVP, made.GantryDetectorTilt, made.ConvolutionKernel, made.XRayTubeCurrent = 120, 0, "STD", 200
    else:
        made.ScanningSequence, made.SequenceVariant, made.ScanOptions = "SE", "SK", ""
        made.MRAcquisitionType, made.RepetitionTime, made.EchoTime, made.EchoTrainLength = "2D", 4000, 90, 16
        made.MagneticFieldStrength, made.FlipAngle = 1.5, 90
    made.PixelData = stored.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def enhanced(
    modality: str, stack: np.ndarray[Any, Any], change: Callable[[int], dict[str, Any]] = lambda index: {}, **top: Any
) -> Any:
    """An Enhanced CT or MR image of a stack (frames, rows, columns); frame i lies and scales as image i of a series.

    ``change(i)`` replaces attributes of one frame's functional groups; ``top`` those of the file.
    """
    from pydicom.dataset import Dataset

    made = dataset(modality, 0, stack[0])
    made.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{2 if modality == 'CT' else 4}.1"
    moved = ("PixelSpacing", "SliceThickness", "SliceLocation", "WindowCenter", "WindowWidth")
    moved += ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType")
    for keyword in moved:
        if keyword in made:
            delattr(made, keyword)

    def item(**values: Any) -> Any:
        built = Dataset()
        for keyword, value in values.items():
            setattr(built, keyword, value)
        return [built]

    frame_type = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "T2", "NONE"]
    made.ImageType, made.NumberOfFrames = frame_type, len(stack)
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[1.5, 1.5], SliceThickness=5)
    for index in range(len(stack)):
        values = {
            "ImagePositionPatient": [-100, -110, -40.5 + 5 * index],
            "RescaleIntercept": -1024 if modality == "CT" else 0,
            "RescaleSlope": 1,
            "RescaleType": "HU" if modality == "CT" else "US",
            "FrameType": frame_type,
            **change(index),
        }
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=values["ImagePositionPatient"])
        rescale = ("RescaleIntercept", "RescaleSlope", "RescaleType")
        frame.PixelValueTransformationSequence = item(**{key: values[key] for key in rescale})
        if "ImageOrientationPatient" in values:
            frame.PlaneOrientationSequence = item(ImageOrientationPatient=values["ImageOrientationPatient"])
        if "EchoTime" in values:
            frame.MREchoSequence = item(EffectiveEchoTime=values["EchoTime"])
        setattr(frame, f"{modality}ImageFrameTypeSequence", item(FrameType=values["FrameType"]))
        frame.FrameVOILUTSequence = item(WindowCenter=40, WindowWidth=80)
        frames.append(frame)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], frames
    made.PixelData = stack.tobytes()
    made["PixelData"].VR = "OW"
    for keyword, value in top.items():
        setattr(made, keyword, value)
    return made


def save(made: Any, path: Path) -> Path:
    """Write as a DICOM file."""
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions and constants above, for tests that need other cases than the fixtures below give."""
    return SimpleNamespace(
        MR=MR,
        CT_HU=CT_HU,
        CT_DISPLAY=CT_DISPLAY,
        STATISTICS=STATISTICS,
        PATIENT_NAME=PATIENT_NAME,
        PATIENT_ID=PATIENT_ID,
        contract=contract,
        ct2mr=ct2mr,
        members_for=members_for,
        pack=pack,
        head=head,
        dataset=dataset,
        enhanced=enhanced,
        save=save,
    )


@pytest.fixture
def bundle_file(tmp_path: Path) -> Callable[..., Path]:
    """Make a bundle: ``bundle_file(contract(...), kind="identity")``."""

    def make(described: Contract | None = None, kind: str = "identity", error: float = 0.0) -> Path:
        chosen = described or contract()
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        number = len(list(folder.glob("*.sccg")))
        return pack(folder / f"tiny{number}.sccg", chosen, members_for(folder, chosen, kind, error))

    return make


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., Path]:
    """Make a series: ``series("MR", slices=5, change=lambda index: {...})``; files are named against slice order."""

    def make(
        modality: str = "MR",
        slices: int = 5,
        size: tuple[int, int] = (64, 64),
        change: Callable[[int], dict[str, Any]] = lambda index: {},
        folder: str | None = None,
    ) -> Path:
        where = tmp_path / (folder or f"{modality.lower()}-series")
        where.mkdir(exist_ok=True)
        for index in range(slices):
            plane = head(*size, seed=index)
            stored = np.rint(plane * (1800 if modality == "CT" else 1000 + 20 * index)).astype(np.uint16)
            save(dataset(modality, index, stored, **change(index)), where / f"IM{slices - index:03d}.dcm")
        return where

    return make


@pytest.fixture
def shared_series() -> Callable[[str], Path]:
    """A real series below ``SCCG_TEST_DATA``; skips where that is not set."""

    def find(name: str) -> Path:
        root = os.environ.get("SCCG_TEST_DATA")
        if not root:
            pytest.skip("SCCG_TEST_DATA is not set: no real DICOM series to test with")
        folder = Path(root, "data", "dicom", name)
        if not folder.is_dir():
            pytest.skip(f"SCCG_TEST_DATA holds no data/dicom/{name}")
        return folder

    return find


@pytest.fixture
def run(bundle_file, tmp_path):
    def convert_it(source, contract=None, kind="identity", out="out", **options):
        return convert_series(source, tmp_path / out, read_bundle(bundle_file(contract, kind)), **options)

    return convert_it
