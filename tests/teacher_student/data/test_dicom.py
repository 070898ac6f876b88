"""DICOM pairs: matched by position, refused where the two series do not lie on one grid."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.dicom_grid import SliceFile, by_level
from sccg_teacher_student.data.source import DataSource, open_data, open_unpaired

Edit = Callable[[Dataset], None]


@pytest.fixture
def case(phantom: Path, tmp_path: Path) -> Path:
    """A private copy of one phantom case, inside an otherwise empty data folder."""
    shutil.copytree(phantom / "train/case01", tmp_path / "data/case01")
    return tmp_path / "data/case01"


def edit(folder: Path, **values: Any) -> None:
    for path in folder.glob("*.dcm"):
        edit_one(path, **values)


def edit_one(path: Path, **values: Any) -> None:
    dataset = dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def opened(case: Path) -> DataSource:
    return open_data(case.parent)


def refused(case: Path, message: str) -> None:
    source = opened(case)
    with pytest.raises(InputError, match=message) as caught:
        source.slices("case01")
    assert "\n" not in str(caught.value)


def test_file_names_do_not_matter_positions_do(case: Path) -> None:
    expected = [pair.ct for pair in opened(case).pairs()]
    for path, name in zip(sorted((case / "ct").iterdir()), ("9", "3.dcm", "1.2.840.7"), strict=True):
        path.rename(path.with_name(name))
    found = list(opened(case).pairs())
    for pair, ct in zip(found, expected, strict=True):
        np.testing.assert_array_equal(pair.ct, ct)
    assert all(pair.mr is not None for pair in found)


def test_two_series_in_one_folder(case: Path) -> None:
    expected = list(opened(case).pairs())
    for modality in ("mr", "ct"):
        for path in (case / modality).iterdir():
            path.rename(case / f"{modality}{path.name}")
        (case / modality).rmdir()
    for pair, other in zip(opened(case).pairs(), expected, strict=True):
        np.testing.assert_array_equal(pair.mr, other.mr)
        np.testing.assert_array_equal(pair.ct, other.ct)


def test_a_slice_without_partner_is_named(case: Path) -> None:
    (case / "mr/0002.dcm").unlink()
    source = opened(case)
    assert source.slices("case01") == ("0001", "0003")
    assert source.load("case01", "0002").mr is None


def test_rescale_and_padding_give_hu(case: Path) -> None:
    path = case / "ct/0001.dcm"
    dataset = dcmread(path)
    stored = dataset.pixel_array.copy()
    stored[:4] = 31000
    dataset.PixelData = stored.tobytes()
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
    dataset.add_new("PixelPaddingValue", "SS", 31000)
    dataset.save_as(path)
    ct = opened(case).load("case01", "0001").ct
    assert ct is not None
    assert (ct[0, :4] == -1).all()
    hu = (ct[0, 4:].astype(np.float64) + 1) * 1512 - 1024
    np.testing.assert_allclose(hu, (stored[4:] * 2.0 - 100).clip(-1024, 2000), atol=1e-3)


@pytest.mark.parametrize(
    ("side", "changes", "message"),
    [
        ("ct", {"RescaleIntercept": None}, "its values have no unit"),
        ("ct", {"RescaleType": "US"}, "not in HU"),
        ("ct", {"SyntheticData": "YES"}, "is synthetic already"),
        ("mr", {"SyntheticData": "YES"}, "is synthetic already"),
    ],
)
def test_what_the_runtime_refuses_is_not_learned_from(
    case: Path, side: str, changes: dict[str, str | None], message: str
) -> None:
    for path in (case / side).iterdir():
        dataset = dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    with pytest.raises(InputError, match=message):
        opened(case).load("case01", "0001")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, r"mr/0001\.dcm is a phase image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, r"mr/0001\.dcm is a localizer"),
        ({"PatientID": "another"}, "belongs to another study or patient"),
        ({"RescaleSlope": 4, "RescaleIntercept": 0}, "has a rescale and .* has none"),
    ],
)
def test_images_that_do_not_belong_into_a_series_are_not_learned_from(
    case: Path, changes: dict[str, Any], message: str
) -> None:
    edit_one(case / "mr/0001.dcm", **changes)
    refused(case, message)


@pytest.mark.parametrize(
    ("keyword", "kind", "value"),
    [
        ("NumberOfFrames", "IS", b"many"),
        ("Rows", "ZZ", b"64"),
        ("HighBit", "US", b"15 "),
        ("FrameOfReferenceUID", "FD", b"1.2.3 "),
    ],
)
def test_a_damaged_attribute_is_told_in_one_line(case: Path, keyword: str, kind: str, value: bytes) -> None:
    dataset, tag = dcmread(case / "ct/0001.dcm"), Tag(keyword)
    dataset._dict[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True, True)
    dataset.save_as(case / "ct/0001.dcm")
    with pytest.raises(InputError, match=r"ct/0001\.dcm has .*damaged") as caught:
        list(opened(case).pairs())
    assert "\n" not in str(caught.value)


def test_mr_padding_and_turned_grey_values_are_read_as_the_runtime_reads_them(case: Path) -> None:
    before = opened(case).load("case01", "0001").mr
    assert before is not None
    for path in (case / "mr").iterdir():
        dataset = dcmread(path)
        stored = dataset.pixel_array.astype(np.uint16)
        turned = np.subtract(65535, stored, dtype=np.uint16)
        turned[0, :8] = 7  # padding: as bright as nothing else
        dataset.PixelData = turned.tobytes()
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME1", 0
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.add_new("PixelPaddingValue", "US", 7)
        dataset.save_as(path)
    after = opened(case).load("case01", "0001").mr
    assert after is not None
    assert (after[0, 0, :8] == -1).all()
    np.testing.assert_allclose(after[0, 1:], before[0, 1:], atol=1e-5)


def test_mr_scale_comes_from_the_series_not_the_slice(case: Path) -> None:
    before = [pair.mr for pair in opened(case).pairs()]
    assert before[0] is not None
    for path in (case / "mr").iterdir():
        dataset = dcmread(path)
        dataset.PixelData = (dataset.pixel_array * 3).tobytes()
        dataset.save_as(path)
    for pair, image in zip(opened(case).pairs(), before, strict=True):
        np.testing.assert_allclose(pair.mr, image, atol=1e-5)
    maxima = [float(image.max()) for image in before if image is not None]
    assert len(set(maxima)) > 1 or maxima[0] == 1.0


def test_series_off_one_grid_are_refused(case: Path) -> None:
    original = case.parent.parent / "original"
    shutil.copytree(case, original)

    def changed(message: str, **values: Any) -> None:
        edit(case / "mr", **values)
        refused(case, message)
        shutil.rmtree(case)
        shutil.copytree(original, case)

    changed("do not share a frame of reference", FrameOfReferenceUID="1.2.3")
    changed("differ in pixel spacing", PixelSpacing=[3.6, 3.5])
    changed("differ in orientation", ImageOrientationPatient=[0.998, 0.06, 0, -0.06, 0.998, 0])
    changed("90 degrees from axial", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    changed("not an axial slice", ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    changed("lacks a position, an orientation or a pixel spacing", PixelSpacing=None)
    changed("a pixel spacing that cannot be", PixelSpacing=[0, 0])
    changed("a pixel spacing that cannot be", PixelSpacing=[-3.6, -3.6])
    changed("no pair of perpendicular unit vectors", ImageOrientationPatient=[10, 0, 0, 0, 10, 0])
    changed("modality CT in folder mr/", Modality="CT")


def test_slices_beside_each_other_are_refused(case: Path) -> None:
    for path in (case / "mr").iterdir():
        x, y, z = dcmread(path).ImagePositionPatient
        edit_one(path, ImagePositionPatient=[x + 5, y, z])
    refused(case, "lies 5.0 mm beside mr/")


def test_thin_slices_are_told_apart(case: Path) -> None:
    for modality, first in (("mr", 0.0), ("ct", 0.15)):
        for number, path in enumerate(sorted((case / modality).iterdir())):
            x, y, _ = dcmread(path).ImagePositionPatient
            edit_one(path, ImagePositionPatient=[x, y, first + 0.4 * number], SliceThickness=0.4)
    assert opened(case).slices("case01") == ("0001", "0002", "0003")
    assert [len(open_unpaired(case.parent, modality).slices("case01")) for modality in ("MR", "CT")] == [3, 3]


def levels(first: float, step: float, count: int) -> list[SliceFile]:
    axial, positions = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), [first + step * number for number in range(count)]
    return [SliceFile(Path(f"{at}"), "1", at, (0.0, 0.0, at), axial, (1.0, 1.0), (64, 64)) for at in positions]


@pytest.mark.parametrize(
    ("mr", "ct", "pairs"),
    [
        (levels(0, 5, 20), levels(0, 0.6, 160), 20),
        (levels(0.3, 5, 20), levels(0, 0.6, 160), 20),  # half-way, now and then
        (levels(0.5, 5, 20), levels(0, 1, 110), 20),  # half-way, always
        (levels(0, 0.4, 9), levels(0.2, 0.4, 9), 9),
        (levels(0, 0.4, 9), levels(0.4, 0.4, 9), 8),
        (levels(0, 5, 3), levels(0.6, 5, 3), 0),
        (levels(0, 5, 1), levels(0.4, 5, 1), 1),
        ([*levels(0, 5, 3), *levels(10.1, 5, 1)], levels(0.3, 5, 3), 3),
    ],
)
def test_slices_are_paired_with_the_nearest(mr: list[SliceFile], ct: list[SliceFile], pairs: int) -> None:
    found = by_level(mr, ct)
    shared = found.mr.keys() & found.ct.keys()
    assert len(shared) == pairs
    for name in shared:
        apart = [abs(found.mr[name].position_mm - file.position_mm) for file in (found.ct[name], *ct)]
        assert apart[0] <= min(0.5, min(apart) + 0.001), "the nearest"
    assert (list(found.mr.values()), list(found.ct.values())) == (mr, ct), "none is lost, and all stay in order"
    assert len(found.mr.keys() | found.ct.keys()) == len(mr) + len(ct) - pairs


def test_a_level_shift_leaves_nothing_in_common(case: Path) -> None:
    for path in (case / "mr").iterdir():
        x, y, z = dcmread(path).ImagePositionPatient
        edit_one(path, ImagePositionPatient=[x, y, z + 5])
    refused(case, "3 MR and 3 CT slices with none in common")


def test_other_sizes_are_refused(case: Path) -> None:
    dataset = dcmread(case / "mr/0001.dcm")
    dataset.PixelData, dataset.Rows = dataset.pixel_array[:32].tobytes(), 32
    dataset.save_as(case / "mr/0001.dcm")
    refused(case, "(32x64|64x64) pixels, .*(64x64|32x64)")


def test_doubles_second_series_and_strangers_are_refused(case: Path) -> None:
    shutil.copy(case / "ct/0001.dcm", case / "ct/0009.dcm")
    refused(case, r"0009\.dcm has the SOPInstanceUID of .*0001\.dcm")
    edit_one(case / "ct/0009.dcm", SOPInstanceUID="1.2.4")
    refused(case, r"0001\.dcm and .*0009\.dcm\): copies, time points or weightings")
    edit_one(case / "ct/0009.dcm", SeriesInstanceUID="1.2.3")
    refused(case, "2 CT series")
    (case / "ct/0009.dcm").write_bytes(b"not DICOM at all")
    refused(case, r"0009\.dcm is not DICOM")
    (case / "ct/0009.dcm").rename(case / "ct/0009")
    refused(case, "0009: not a DICOM file")


def test_of_several_echoes_one_is_to_be_kept(case: Path) -> None:
    """sccg-runtime has an option for it, training has not."""
    for number, path in enumerate(sorted((case / "mr").iterdir())):
        echo = shutil.copy(path, case / "mr" / f"echo{number}.dcm")
        edit_one(path, EchoTime=20)
        edit_one(Path(echo), EchoTime=90, SOPInstanceUID=f"1.2.3.{number}")
    refused(case, r"one MR series of several echoes \(20, 90 ms\); keep the images of one")


def test_a_damaged_file_is_named(case: Path) -> None:
    path = case / "mr/0002.dcm"
    path.write_bytes(path.read_bytes()[:-1000])
    source = opened(case)
    with pytest.raises(InputError, match=r"0002\.dcm (holds|is cut|cannot|ends).*(replace|remove)") as caught:
        source.load("case01", "0001")
    assert "\n" not in str(caught.value)


def test_one_modality_of_a_dicom_case(case: Path) -> None:
    source = open_unpaired(case.parent, "CT")
    pair = source.load("case01", "0001")
    assert pair.mr is None
    assert pair.ct is not None


def test_display_without_a_window_is_refused_for_hu(case: Path, tmp_path: Path) -> None:
    text = (
        '[mr]\nkind = "percentile"\npercentile = 99.5\nforeground_above = 0.05\nlevel = 0.9\n[ct]\nkind = "display"\n'
    )
    settings = tmp_path / "display.toml"
    settings.write_text(text)
    source = open_data(case.parent, settings=settings)
    with pytest.raises(InputError, match="give window_center_hu"):
        source.load("case01", "0001")
    settings.write_text(text + "window_center_hu = 40\nwindow_width_hu = 80\n")
    ct = open_data(case.parent, settings=settings).load("case01", "0001").ct
    assert ct is not None
    assert ct.max() == 1


def test_spacing_that_contradicts_the_settings_is_refused(case: Path, phantom: Path) -> None:
    text = (phantom / "sccg.toml").read_text(encoding="utf-8").replace("[3.6, 3.6]", "0.9")
    (case.parent / "sccg.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="resample all cases to one spacing"):
        opened(case).spacing_mm()


@pytest.mark.parametrize(("name", "slices"), [("ct_head_tilted", 28), ("mr_t2_head", 22)])
def test_real_series_open(name: str, slices: int) -> None:
    root = os.environ.get("SCCG_TEST_DATA")
    if not root:
        pytest.skip("SCCG_TEST_DATA is not set: no real data to read")
    folder = Path(root) / "data/dicom" / name
    if not folder.is_dir():
        pytest.skip(f"SCCG_TEST_DATA has no {folder}")
    source = open_unpaired(folder, "CT" if name.startswith("ct") else "MR")
    assert len(source.slices(name)) == slices
    pair = source.load(name, "0010")
    image = pair.mr if pair.ct is None else pair.ct
    assert image is not None
    assert image.shape == (1, 512, 512)
    assert image.min() == -1
    assert 0.5 < image.max() <= 1
