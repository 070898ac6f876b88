import errno
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from sccg_runtime.bundle import read_bundle
from sccg_runtime.convert import convert_series
from sccg_runtime.dicom.geometry import arrange
from sccg_runtime.dicom.pixels import read_plane
from sccg_runtime.dicom.series import choose_series, find_series
from sccg_runtime.errors import InputError, SeriesError

STACK = np.random.default_rng(3).integers(0, 2000, (4, 16, 12)).astype(np.uint16)


def planes(source, modality):
    chosen = choose_series(find_series(source, modality)[0])
    return [read_plane(header, modality) for header in arrange(chosen.headers).headers]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "enhanced"
    made.mkdir()
    return made


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_every_frame_has_its_own_place_and_rescale(make, folder, modality):
    """Frames in reverse order of position, each with another slope."""

    def change(index):
        return {"ImagePositionPatient": [-100, -110, 50 - 5 * index], "RescaleSlope": 1 + index, "RescaleIntercept": -7}

    make.save(make.enhanced(modality, STACK, change), folder / "multi.dcm")
    found = planes(folder, modality)
    assert [plane.frame_number for plane in found] == [4, 3, 2, 1]
    for plane in found:
        index = plane.frame_number - 1
        np.testing.assert_array_equal(plane.values(), STACK[index].astype(np.float32) * (1 + index) - 7)
        assert plane.dataset.ImagePositionPatient[2] == 50 - 5 * index
        assert list(plane.dataset.PixelSpacing) == [1.5, 1.5]
        assert plane.dataset.PatientName == make.PATIENT_NAME


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("zipped", [False, True])
def test_uncompressed_syntaxes_in_folders_and_zips_give_the_same_pixels(make, folder, syntax, zipped):
    made = make.enhanced("CT", STACK.astype(">u2") if syntax == ExplicitVRBigEndian else STACK)
    made.file_meta.TransferSyntaxUID = syntax
    path = folder / "multi.dcm"
    make.save(made, path)
    source = Path(shutil.make_archive(str(folder.parent / "zipped"), "zip", folder)) if zipped else folder
    for plane, expected in zip(planes(source, "CT"), STACK, strict=True):
        np.testing.assert_array_equal(plane.values(), expected.astype(np.float32) - 1024)


@pytest.mark.parametrize("offsets", ["basic", "none", "extended"])
def test_compressed_frames_are_found_with_and_without_offset_tables(make, folder, offsets):
    made = make.enhanced("CT", STACK)
    parts = []
    for frame in STACK:
        single = make.dataset("CT", 0, frame)
        single.compress(RLELossless, generate_instance_uid=False)
        parts.append(_only_frame(single))
    if offsets == "extended":
        made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = encapsulate_extended(parts)
    else:
        made.PixelData = encapsulate(parts, has_bot=offsets == "basic")
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = RLELossless
    make.save(made, folder / "multi.dcm")
    for plane, expected in zip(planes(folder, "CT"), STACK, strict=True):
        np.testing.assert_array_equal(plane.values(), expected.astype(np.float32) - 1024)


def _only_frame(dataset):
    from pydicom.encaps import get_frame

    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def test_the_output_is_a_classic_series_that_names_the_frames(make, folder, bundle_file, tmp_path):
    stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(4)])
    source = make.save(make.enhanced("MR", stack), folder / "multi.dcm")
    result = convert_series(folder, tmp_path / "out", read_bundle(bundle_file()))
    assert result.slices == 4
    made = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert {item.SOPClassUID for item in made} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert [item.SourceImageSequence[0].ReferencedFrameNumber for item in made] == [1, 2, 3, 4]
    assert [item.InstanceNumber for item in made] == [1, 2, 3, 4]
    assert len({item.SOPInstanceUID for item in made}) == 4
    origin = dcmread(source)
    for keyword in ("PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDescription"):
        assert {str(item[keyword].value) for item in made} == {str(origin[keyword].value)}


def test_one_frame_that_does_not_fit_rejects_the_series(make, folder):
    frame_type = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    make.save(make.enhanced("CT", STACK, lambda i: {"FrameType": frame_type} if i == 2 else {}), folder / "multi.dcm")
    with pytest.raises(SeriesError, match=r"multi\.dcm frame 3 is a localizer"):
        planes(folder, "CT")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_frames_that_are_projections_reject_the_series(make, folder, modality):
    made = make.enhanced(modality, STACK)
    frame = made.PerFrameFunctionalGroupsSequence[2]
    frame[f"{modality}ImageFrameTypeSequence"].value[0].VolumeBasedCalculationTechnique = "MAX_IP"
    make.save(made, folder / "multi.dcm")
    with pytest.raises(SeriesError, match=r"multi\.dcm frame 3 is a projection"):
        planes(folder, modality)


def test_frames_that_are_missing_or_not_described_are_refused(make, folder):
    path = make.save(make.enhanced("CT", STACK, NumberOfFrames=5), folder / "multi.dcm")
    with pytest.raises(SeriesError, match=r"multi\.dcm says 5 frames and describes 4"):
        planes(folder, "CT")
    make.save(make.enhanced("CT", STACK), path)
    path.write_bytes(path.read_bytes()[: -STACK[0].nbytes])
    with pytest.raises(SeriesError, match=r"multi\.dcm frame"):
        planes(folder, "CT")
    made = make.enhanced("CT", STACK)
    del made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    make.save(made, path)
    with pytest.raises(SeriesError, match=r"multi\.dcm frame 2 lacks a position"):
        planes(folder, "CT")


def split(make, folder, modality, stack):
    """Write eight frames in two files."""
    for part in range(2):
        first = 4 * part
        made = make.enhanced(
            modality,
            stack,
            lambda i, first=first: {"ImagePositionPatient": [0, 0, 5 * (i + first)]},
            ConcatenationUID="1.2.9",
            InConcatenationTotalNumber=2,
            SOPInstanceUID=f"1.2.8.{part}",
        )
        make.save(made, folder / f"part{part}.dcm")


def test_frames_of_a_split_image_are_numbered_through(make, folder, bundle_file, tmp_path):
    split(make, folder, "MR", np.stack([np.rint(make.head(seed=i) * 1000).astype(np.uint16) for i in range(4)]))
    convert_series(folder, tmp_path / "out", read_bundle(bundle_file()))
    made = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [item.InstanceNumber for item in made] == list(range(1, 9))
    assert [item.SourceImageSequence[0].ReferencedFrameNumber for item in made] == [1, 2, 3, 4] * 2


def test_a_split_image_must_be_complete(make, folder):
    split(make, folder, "CT", STACK)
    assert len(planes(folder, "CT")) == 8
    (folder / "part1.dcm").unlink()
    with pytest.raises(SeriesError, match="1 of the 2 files of a split multi-frame image"):
        planes(folder, "CT")


def test_classic_and_multi_frame_images_in_one_series_are_refused(make, folder):
    make.save(make.enhanced("CT", STACK), folder / "multi.dcm")
    make.save(make.dataset("CT", 9, STACK[0]), folder / "single.dcm")
    with pytest.raises(SeriesError, match="mixes classic and multi-frame"):
        planes(folder, "CT")


def test_a_full_disk_is_not_called_damage(make, folder, monkeypatch):
    make.save(make.enhanced("CT", STACK), folder / "multi.dcm")
    source = Path(shutil.make_archive(str(folder.parent / "zipped"), "zip", folder))
    headers = arrange(choose_series(find_series(source, "CT")[0]).headers).headers

    class Full(io.RawIOBase):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr("tempfile.TemporaryFile", lambda **_: Full())
        for header in headers[:2]:
            with pytest.raises(InputError, match="No space left on device") as caught:
                read_plane(header, "CT")
            assert "replace" not in str(caught.value)
    np.testing.assert_array_equal(read_plane(headers[0], "CT").stored, STACK[0])


def test_a_damaged_zip_member_is_one_line(make, folder, tmp_path):
    make.save(make.enhanced("CT", STACK), folder / "multi.dcm")
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "multi.dcm", "../multi.dcm")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"^multi\.dcm in bad\.zip is damaged: "):
        planes(path, "CT")
