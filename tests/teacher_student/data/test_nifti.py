"""NIfTI pairs: one grid, shown as a DICOM viewer shows axial slices, whatever the file's axis order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.source import open_data

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra nifti)")

RAS = np.array([[0.8, 0, 0, -10], [0, 0.9, 0, -20], [0, 0, 5, -30], [0, 0, 0, 1]], float)
SHAPE = (6, 8, 3)  # right-left, back-front, feet-head


def save(path: Path, values: np.ndarray, affine: np.ndarray = RAS, axes: str = "RAS") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    target = nibabel.orientations.axcodes2ornt(tuple(axes))
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(affine), target)
    )
    nibabel.save(turned, path)


def marked() -> np.ndarray:
    """Air, with one bright voxel at the patient's right, front, head end."""
    values = np.full(SHAPE, -1000.0)
    values[SHAPE[0] - 1, SHAPE[1] - 2, 2] = 1500
    return values


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SRA", "PIR"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_right_is_left_and_front_is_up(tmp_path: Path, axes: str, ending: str) -> None:
    save(tmp_path / f"case1/ct{ending}", marked(), axes=axes)
    save(tmp_path / f"case1/mr{ending}", np.maximum(marked(), 0), axes="RAS")
    source = open_data(tmp_path)
    assert source.kind == "nifti"
    assert source.slices("case1") == ("0001", "0002", "0003")
    assert source.spacing_mm() == pytest.approx((0.9, 0.8))
    for name in ("0001", "0002", "0003"):
        pair = source.load("case1", name)
        assert pair.ct is not None
        assert pair.mr is not None
        assert pair.ct.shape == pair.mr.shape == (1, 8, 6)
        assert pair.ct.dtype == np.float32
        expected = [[0, 1, 0]] if name == "0003" else []  # second row from the front, first column: patient's right
        assert np.argwhere(pair.ct > 0).tolist() == expected
        assert np.argwhere(pair.mr > 0).tolist() == expected


def test_a_turned_volume_is_read_once_for_all_its_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "c/ct.nii.gz", marked(), axes="LPS")
    reads = []
    read = nibabel.arrayproxy.ArrayProxy.__array__

    def counted(self: object, *arguments: object, **options: object) -> object:
        reads.append(1)
        return read(self, *arguments, **options)

    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", counted)
    source = open_data(tmp_path)
    assert source.spacing_mm() == pytest.approx((0.9, 0.8))
    for name in source.slices("c"):
        source.load("c", name)
    assert len(reads) == 1


@pytest.mark.parametrize(("degrees", "axial"), [(25, True), (40, False)])
def test_slices_far_from_axial_are_refused_as_the_runtime_does(tmp_path: Path, degrees: float, axial: bool) -> None:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    save(tmp_path / "c/ct.nii.gz", marked(), about_x @ RAS)
    source = open_data(tmp_path)
    if axial:
        assert source.load("c", "0001").ct is not None
        return
    with pytest.raises(InputError, match=r"ct\.nii\.gz: its slices lie 40 degrees from axial"):
        source.load("c", "0001")


def test_lengths_in_another_unit_are_not_taken_for_mm(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(marked().astype(np.float32), RAS)
    image.header.set_xyzt_units("micron")
    (tmp_path / "c").mkdir()
    nibabel.save(image, tmp_path / "c/ct.nii.gz")
    with pytest.raises(InputError, match="states lengths in micrometres, not in mm"):
        open_data(tmp_path).spacing_mm()


def test_axes_without_direction_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "c/ct.nii.gz", np.zeros(SHAPE))
    image = nibabel.load(tmp_path / "c/ct.nii.gz")
    values = np.asarray(image.dataobj)
    spoiled = nibabel.Nifti1Image(values, None, image.header)
    spoiled.header["srow_x"][:] = np.nan
    nibabel.save(spoiled, tmp_path / "c/ct.nii.gz")
    source = open_data(tmp_path)
    with pytest.raises(InputError, match="its axes have no direction"):
        source.slices("c")


@pytest.mark.parametrize("axes", ["RAS", "LPS"])
def test_a_cut_off_volume_is_named(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "c/ct.nii.gz"
    save(path, np.random.default_rng(0).normal(0, 100, (32, 32, 8)), axes=axes)
    path.write_bytes(path.read_bytes()[:-1000])
    source = open_data(tmp_path)
    with pytest.raises(InputError, match=r"ct\.nii\.gz: damaged NIfTI file"):
        source.load("c", "0001")


def test_hu_window_and_mr_percentile(tmp_path: Path) -> None:
    save(tmp_path / "c/ct.nii.gz", np.full(SHAPE, 488.0))
    pair = open_data(tmp_path).load("c", "0001")
    np.testing.assert_allclose(pair.ct, 0, atol=1e-6)
    assert pair.mr is None


def test_grids_that_differ_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        source = open_data(tmp_path)
        with pytest.raises(InputError, match=message) as caught:
            source.load("c", source.slices("c")[0])
        assert "\n" not in str(caught.value)

    save(tmp_path / "c/mr.nii.gz", np.ones(SHAPE))
    moved = RAS.copy()
    moved[0, 3] += 2
    save(tmp_path / "c/ct.nii.gz", np.zeros(SHAPE), moved)
    refused("lie up to 2.0 mm apart")
    save(tmp_path / "c/ct.nii.gz", np.zeros((6, 8, 4)))
    refused("have shapes 3x8x6 and 4x8x6")
    save(tmp_path / "c/ct.nii.gz", np.full(SHAPE, np.nan))
    refused("not finite")
    (tmp_path / "c/ct.nii.gz").write_bytes(b"nothing")
    refused("not a NIfTI file, or damaged")
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 8, 3, 2), np.float32), RAS), tmp_path / "c/ct.nii.gz")
    refused("a single volume is needed")
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "c/ct.nii.gz")
    refused("states no orientation")


def test_an_empty_mr_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c/mr.nii.gz", np.zeros(SHAPE))
    source = open_data(tmp_path)
    with pytest.raises(InputError, match="no signal"):
        source.load("c", "0001")


def test_two_files_for_one_volume_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "c/mr.nii.gz", np.ones(SHAPE))
    save(tmp_path / "c/mr.nii", np.ones(SHAPE))
    with pytest.raises(InputError, match="keep one of them"):
        open_data(tmp_path)
