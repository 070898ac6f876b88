"""The NIfTI volume holds the values of the DICOM output, at the places where that has them."""

import gzip
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pydicom import dcmread

from sccg_runtime.bundle import read_bundle
from sccg_runtime.convert import convert_series
from sccg_runtime.errors import InputError, MissingDependencyError, RefusedError, SeriesError

nibabel = pytest.importorskip("nibabel", reason="nibabel (extra nifti) is not installed")
OBLIQUE = [0.9659258, 0.2588190, 0, -0.2548869, 0.9512512, -0.1736482]


@pytest.fixture
def run(bundle_file, tmp_path):
    def convert_it(source, out, contract=None, kind="identity", **options):
        path = tmp_path / out
        options = {"format": "nifti" if out.endswith(".gz") else "dicom", **options}
        convert_series(source, path, read_bundle(bundle_file(contract, kind)), threads=1, **options)
        return path

    return convert_it


def along_the_normal(index):
    """Slices of an oblique series stacked without shear."""
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    return [float(f"{value:.5f}") for value in np.array([-100, -110, -40.5]) + 5 * index * normal]


GEOMETRIES = {
    "plain": lambda index: {},
    "anisotropic": lambda index: {"PixelSpacing": [0.8, 1.7]},
    "feet first": lambda index: {"ImagePositionPatient": [-100, -110, 60 - 4.5 * index]},
    "oblique": lambda index: {"ImageOrientationPatient": OBLIQUE, "ImagePositionPatient": along_the_normal(index)},
    "tilted": lambda index: {"ImageOrientationPatient": [1, 0, 0, 0, 0.9483237, -0.3173047]},
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_voxel_lies_where_the_dicom_output_has_it(run, series, name):
    source = series("MR", size=(48, 64), change=GEOMETRIES[name])
    images = [dcmread(path) for path in sorted(run(source, "dicom").iterdir())]
    volume = nibabel.load(run(source, "ct.nii.gz"))
    assert volume.shape == (64, 48, 5)
    assert volume.get_data_dtype() == np.int16
    assert volume.header.get_xyzt_units()[0] == "mm"
    values = np.asarray(volume.dataobj)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(values[:, :, index].T, image.pixel_array)
        down, right = (float(side) for side in image.PixelSpacing)  # between rows, between columns
        corner, directions = np.array(image.ImagePositionPatient, float), np.array(image.ImageOrientationPatient, float)
        for row, column in ((0, 0), (47, 0), (0, 63), (31, 12)):
            lps = corner + directions[:3] * right * column + directions[3:] * down * row
            found = volume.affine @ [column, row, index, 1]
            np.testing.assert_allclose(found[:3], lps * [-1, -1, 1], atol=1e-3)
    assert int(volume.header["sform_code"]) == 1
    assert int(volume.header["qform_code"]) == (0 if name == "tilted" else 1)
    if name != "tilted":
        np.testing.assert_allclose(volume.header.get_qform(), volume.affine, atol=1e-3)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("name", ["anisotropic", "oblique"])
def test_dcm2niix_puts_the_dicom_output_in_the_same_place(run, series, tmp_path, name):
    source = series("MR", size=(48, 64), change=GEOMETRIES[name])
    ours = nibabel.load(run(source, "ct.nii.gz"))
    (tmp_path / "theirs").mkdir()
    command = ["dcm2niix", "-b", "n", "-f", "ct", "-o", tmp_path / "theirs", run(source, "dicom")]
    subprocess.run(command, check=True, capture_output=True)
    theirs = nibabel.load(next((tmp_path / "theirs").glob("*.nii")))
    way = np.linalg.inv(theirs.affine) @ ours.affine
    values, expected = np.asarray(ours.dataobj), np.asarray(theirs.dataobj)
    for voxel in ((0, 0, 0), (20, 30, 2), (63, 47, 4), (33, 12, 1)):
        place = (way @ [*voxel, 1])[:3]
        np.testing.assert_allclose(place, np.rint(place), atol=1e-2)
        assert expected[tuple(np.rint(place).astype(int))] == values[voxel]


def test_the_units_are_those_of_the_dicom_output(run, series, make):
    hu = np.asarray(nibabel.load(run(series("MR"), "ct.nii.gz")).dataobj)
    assert hu.min() == -1024
    assert 1700 < hu.max() <= 2000
    mr = np.asarray(nibabel.load(run(series("CT"), "mr.nii.gz", make.ct2mr())).dataobj)
    assert mr.min() == 0
    assert 2000 < mr.max() <= 4095


def test_the_file_says_what_it_is_and_nothing_of_the_patient(run, series, make, tmp_path):
    path = run(series("MR"), "ct.nii.gz", make.contract(output_intensity=make.CT_DISPLAY))
    header = nibabel.load(path).header
    assert bytes(header["descrip"]).startswith(b"SYNTHETIC, NOT HU: CT from MR")
    assert b"sccg-runtime 0.1.0; bundle " in bytes(header["descrip"])
    (extension,) = header.extensions
    text = extension.get_content()
    assert b"Pixel values have no unit" in (text if isinstance(text, bytes) else text.encode())
    content = gzip.decompress(path.read_bytes())
    for secret in (b"Muster", make.PATIENT_ID.encode(), b"19700101", b"1.2.826"):
        assert secret not in content
    assert b"ct.nii" not in path.read_bytes()[:100]


def test_a_single_slice_is_as_thick_as_it_says(run, series):
    volume = nibabel.load(run(series(slices=1), "ct.nii.gz"))
    assert volume.header.get_zooms() == (1.5, 1.5, 5)
    with pytest.raises(SeriesError, match="SliceThickness"):
        run(series(slices=1, folder="thin", change=lambda index: {"SliceThickness": ""}), "thin.nii.gz")


def test_what_a_volume_cannot_say_is_refused_before_the_work(run, series, tmp_path):
    uneven = series(change=lambda index: {"ImagePositionPatient": [-100, -110, 5 * index + (0.5 if index == 2 else 0)]})
    with pytest.raises(SeriesError, match=r"move one by 0\.50 mm"):
        run(uneven, "ct.nii.gz", kind="nan")
    gap = series(slices=8, folder="gap")
    (gap / "IM004.dcm").unlink()
    with pytest.raises(SeriesError, match="one distance"):
        run(gap, "ct.nii.gz", allow_gaps=True)
    assert not (tmp_path / "ct.nii.gz").exists()


def test_the_name_and_the_format_must_agree(run, series, tmp_path):
    for name, chosen in (("ct.nii.gz", "dicom"), ("ct.nii", "nifti"), ("ct", "nifti"), ("ct", "png")):
        with pytest.raises(InputError, match="format"):
            run(series(), name, format=chosen)
        assert not (tmp_path / name).exists()


def test_an_earlier_file_is_replaced_only_with_force_and_only_on_success(run, series, tmp_path):
    path = run(series(), "ct.nii.gz")
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists"):
        run(series(), "ct.nii.gz")
    with pytest.raises(RefusedError):
        run(series(), "ct.nii.gz", kind="nan", force=True)
    assert path.read_bytes() == before
    run(series(), "ct.nii.gz", kind="negative", force=True)
    assert path.read_bytes() != before
    assert [item.name for item in tmp_path.iterdir() if "ct" in item.name] == ["ct.nii.gz"]
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        run(series(), "folder.nii.gz", force=True)


@pytest.mark.parametrize("content", ["acquired", "text", "cut off"])
def test_a_volume_that_is_not_synthetic_is_not_replaced(run, series, tmp_path, content):
    path = run(series(), "ct.nii.gz")
    if content == "acquired":
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    else:
        path.write_bytes(b"text" if content == "text" else path.read_bytes()[:60])
    before = path.read_bytes()
    with pytest.raises(InputError, match="something else than a synthetic volume"):
        run(series(), "ct.nii.gz", force=True)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(InputError, match="something else than a synthetic volume"):
        run(series(), "ct.nii.gz", force=True, progress=lambda done, total: path.write_bytes(before))
    assert path.read_bytes() == before


def test_a_closed_file_stays_closed(run, series):
    path = run(series(), "ct.nii.gz")
    path.chmod(0o600)
    run(series(), "ct.nii.gz", kind="negative", force=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_comes_in_meanwhile_is_kept(run, series, tmp_path):
    path = tmp_path / "ct.nii.gz"
    with pytest.raises(InputError, match="meanwhile"):
        run(series(), path.name, progress=lambda done, total: path.write_text("another program's"))
    assert path.read_text() == "another program's"


def test_without_nibabel_the_advice_is_one_line(run, series, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "sccg-runtime\[nifti\]"'):
        run(series(), "ct.nii.gz")
    run(series(), "out")
