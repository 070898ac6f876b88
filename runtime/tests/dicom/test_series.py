import shutil
import zipfile
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sccg_runtime.dicom.quiet import QUIET_PYDICOM
from sccg_runtime.dicom.series import apply_rules, choose_series, find_series
from sccg_runtime.errors import SeriesError


def test_the_one_series_that_fits_is_chosen(series):
    mr, ct = series("MR"), series("CT")
    both = mr.parent
    for modality, folder in (("MR", mr), ("CT", ct)):
        found, foreign = find_series(both, modality)
        chosen = choose_series(found)
        assert {header.modality for header in chosen.headers} == {modality}
        assert len(chosen.headers) == len(list(folder.iterdir()))
        assert foreign == 0


def test_a_zip_gives_the_same_series(series, tmp_path):
    folder = series()
    path = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    assert zipfile.is_zipfile(path)
    from_zip, from_folder = (find_series(type(folder)(source), "MR")[0] for source in (path, folder))
    assert [header.position_mm for header in from_zip[0].headers] == [
        header.position_mm for header in from_folder[0].headers
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "dose report"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MNIP", "ND", "NORM"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "ANGIO", "MAXIMUM"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MINIP"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAX_IP THICK"]}, "projection"),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "projection"),
        ({"VolumeBasedCalculationTechnique": "CURVED_MPR"}, "curved"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"]}, "real part"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I_FFE", "I", "FFE"]}, "imaginary part"),
        ({"ImageType": ["DERIVED", "PRIMARY", "FAT_FRACTION"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PERFUSION", "TTP"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T2_STAR MAP"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION MAP"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "T1_MAP"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "FIELD_MAP"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "DIFFUSION_ANISO"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PERFUSION", "RELCBV"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MODULUS SUBTRACT"]}, "difference"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SUB"]}, "difference"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SYNTHETIC"]}, "synthetic, not acquired"),
        ({"ComplexImageComponent": "PHASE"}, "phase image"),
        ({"ComplexImageComponent": "REAL"}, "real part"),
        ({"SyntheticData": "YES"}, "synthetic already"),
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "oriented otherwise"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "takes MR"),
        ({"Modality": "PT"}, "modality PT"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"SamplesPerPixel": 3}, "3 samples"),
        ({"StudyInstanceUID": None}, "lacks a SOP instance"),
    ],
)
def test_one_image_that_does_not_fit_rejects_its_series_with_the_reason(series, change, reason):
    folder = series(change=lambda index: change if index == 3 else {})
    found, _ = find_series(folder, "MR")
    with pytest.raises(SeriesError, match=reason):
        choose_series(found)


@pytest.mark.parametrize(
    ("value", "reason"), [(0, None), (1, "a phase image"), (2, "the real part"), (3, "the imaginary part")]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_scanners_of_ge_say_in_private_counts_too(series, value, reason, syntax):
    folder = series()
    for path in folder.iterdir():
        image = dcmread(path)
        image.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", value)
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    found = find_series(folder, "MR")[0][0]
    assert found.rejected is None if reason is None else reason in found.rejected


@pytest.mark.parametrize("names", ["IM{:03d}", "1.2.840.{}"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_image_without_a_suffix_is_no_silent_gap(series, names, kept):
    folder = series()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / names.format(number))
    (folder / "README").write_text("read me")
    (folder / "viewer.exe").write_bytes(b"MZ")
    assert find_series(folder, "MR")[1] == 2
    last = folder / names.format(4)
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(SeriesError, match="called like an image beside it but is not DICOM"):
        find_series(folder, "MR")


def test_several_series_that_fit_need_a_choice(series):
    first = series(folder="a")
    series(folder="b", slices=3, change=lambda index: {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7})
    found, _ = find_series(first.parent, "MR")
    with pytest.raises(SeriesError, match=r"--series :N, as listed: :1 series 3 \(5 MR .*; :2 series 7 \(3 MR"):
        choose_series(found)
    assert len(choose_series(found, "7").headers) == 3
    assert len(choose_series(found, "1.2.3").headers) == 3
    assert [len(choose_series(found, place).headers) for place in (":1", ":2")] == [5, 3]
    for wrong in ("9", ":0", ":3", ":", ":-1"):
        with pytest.raises(SeriesError, match=f"no series {wrong}; there are: :1 series 3"):
            choose_series(found, wrong)


def test_no_number_is_no_name(series):
    first = series(folder="a")
    series(folder="b", change=lambda index: {"SeriesInstanceUID": "1.2.3", "SeriesNumber": None})
    with pytest.raises(SeriesError, match="no series None"):
        choose_series(find_series(first.parent, "MR")[0], "None")


def test_series_that_no_number_tells_apart_are_chosen_by_their_place(series):
    first = series(folder="a")
    series(folder="b", change=lambda index: {"SeriesInstanceUID": "1.2.3"})
    series(folder="c", slices=4, change=lambda index: {"SeriesInstanceUID": "1.2.4", "Modality": "CT"})
    found, _ = find_series(first.parent, "MR")
    with pytest.raises(SeriesError, match=r"2 series have number or description 3; .*: :1 series 3 .*; :2 series 3"):
        choose_series(found, "3")
    assert choose_series(found, ":2").headers[0].series_uid == "1.2.3"
    with pytest.raises(SeriesError, match="is not converted"):
        choose_series(found, ":3")


@pytest.mark.parametrize(("wanted", "slices"), [("Ax T2 FLAIR", 3), ("ax t2 flair", 3), ("flair", 3), ("Ax T2", 5)])
def test_a_series_is_chosen_by_its_description_the_whole_text_first(series, wanted, slices):
    first = series(folder="a", change=lambda index: {"SeriesDescription": "Ax T2"})
    change = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7, "SeriesDescription": "Ax T2 FLAIR"}
    series(folder="b", slices=3, change=lambda index: change)
    found, _ = find_series(first.parent, "MR")
    assert len(choose_series(found, wanted).headers) == slices
    with pytest.raises(SeriesError, match="2 series have number or description t2"):
        choose_series(found, "t2")


def test_rules_of_sequence_and_slice_count_reject_with_the_reason(series):
    first = series(folder="a", change=lambda index: {"SequenceName": "*tse2d_T2"})
    change = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7, "ProtocolName": "T1 MPRAGE"}
    series(folder="b", slices=3, change=lambda index: change)
    found, _ = find_series(first.parent, "MR")
    for rules, number in (({"sequence": "t2"}, 3), ({"sequence": "mprage"}, 7), ({"min_slices": 4}, 3)):
        assert choose_series(apply_rules(found, **rules)).headers[0].series_number == number
    with pytest.raises(SeriesError, match=r"names no sequence FLAIR.*names no sequence FLAIR"):
        choose_series(apply_rules(found, sequence="FLAIR"))
    with pytest.raises(SeriesError, match=r"series 7 .*fewer than 4 slices"):
        choose_series(apply_rules(found, min_slices=4), "7")


def test_coronal_series_are_rejected_so_that_the_axial_one_is_chosen(series):
    first = series(folder="a")
    coronal = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    series(folder="b", change=lambda index: coronal)
    found, _ = find_series(first.parent, "MR")
    assert choose_series(found).headers[0].series_number == 3
    assert [item.rejected for item in found] == [None, "its slices lie 90 degrees from axial"]


def test_a_number_that_two_series_share_is_refused(series):
    first = series(folder="a")
    series(folder="b", change=lambda index: {"SeriesInstanceUID": "1.2.3"})
    found, _ = find_series(first.parent, "MR")
    with pytest.raises(SeriesError, match="SeriesInstanceUID"):
        choose_series(found, "3")


def test_a_wanted_series_that_does_not_fit_says_why(series):
    found, _ = find_series(series("CT"), "MR")
    with pytest.raises(SeriesError, match="takes MR images, this is CT"):
        choose_series(found, "3")


def test_files_that_are_not_dicom_are_counted(series):
    folder = series()
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").write_text("")
    assert find_series(folder, "MR")[1] == 2


@pytest.mark.parametrize("content", [b"", b"hello", bytes(132)])
def test_a_file_that_claims_to_be_dicom_but_is_not_is_refused(series, content):
    folder = series()
    (folder / "IM009.dcm").write_bytes(content)
    with pytest.raises(SeriesError, match=r"IM009\.dcm is not DICOM or is cut off"):
        find_series(folder, "MR")


def test_a_file_that_is_cut_off_anywhere_before_its_pixels_is_refused(series):
    """The last slice: no gap would give it away."""
    folder = series(slices=3, size=(8, 8))
    path = folder / "IM001.dcm"
    data = path.read_bytes()
    for length in range(0, len(data) - 8 * 8 * 2 - 8, 7):
        path.write_bytes(data[:length])
        with pytest.raises(SeriesError, match=r"IM001\.dcm"):
            find_series(folder, "MR")


def test_an_index_of_the_medium_is_no_image(series):
    folder = series()
    change = {"SOPClassUID": "1.2.840.10008.1.3.10", "SeriesInstanceUID": None}
    series(slices=1, folder="other", change=lambda index: change)
    (folder.parent / "other" / "IM001.dcm").rename(folder / "DICOMDIR")
    found, _ = find_series(folder, "MR")
    assert len(choose_series(found).headers) == 5


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(SeriesError, match="none of 1 files is DICOM"):
        find_series(tmp_path, "MR")


def test_the_current_folder_has_a_name_in_messages(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SeriesError, match=r"^\.: none of 1 files"):
        find_series(Path(), "MR")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("WindowCenter", "40\\"), ("SliceThickness", "5 mm"), ("SeriesNumber", "3b"), ("EchoTime", "?"), ("KVP", "12O")],
)
def test_a_number_that_nobody_needs_may_be_none(series, keyword, value):
    folder = series()
    for path in folder.iterdir():
        image = dcmread(path)
        tag = tag_for_keyword(keyword)
        image._dict[Tag(tag)] = RawDataElement(Tag(tag), dictionary_VR(tag), len(value), value.encode(), 0, False, True)
        image.save_as(path)
    with QUIET_PYDICOM:  # whose warning would be an error here
        assert len(choose_series(find_series(folder, "MR")[0]).headers) == 5


def test_messages_hold_nothing_of_the_patient(series, make):
    first = series(folder="a")
    series(folder="b", change=lambda index: {"SeriesInstanceUID": "1.2.3"})
    found, _ = find_series(first.parent, "MR")
    with pytest.raises(SeriesError) as caught:
        choose_series(found)
    text = str(caught.value) + repr(found) + repr(found[0].headers)
    for secret in ("Muster", "Änne", make.PATIENT_ID, "1.2.3", found[0].headers[0].study_uid):
        assert secret not in text
