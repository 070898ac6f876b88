"""The phantom on disk: valid DICOM, read back as drawn, whole or not at all, the same bytes every time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_runtime.intensity import unit_to_linear
from sccg_teacher_student.data.phantom import phantom_case, phantom_pairs
from sccg_teacher_student.data.phantom_dicom import split_of, write_phantom
from sccg_teacher_student.data.source import open_data


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_opens_as_simulated_data_with_splits(phantom: Path) -> None:
    source = open_data(phantom)
    assert source.kind == "dicom"
    assert source.simulated
    assert source.splits == {"train": ("case01",), "val": ("case02",), "test": ("case03",)}
    assert source.slices("case01") == ("0001", "0002", "0003")
    assert source.spacing_mm() == pytest.approx((3.6, 3.6))


def test_reads_back_as_drawn(phantom: Path) -> None:
    source = open_data(phantom)
    drawn = phantom_case(1, 5, (64, 64), 3)
    for number, name in enumerate(source.slices("case02")):
        pair = source.load("case02", name)
        assert pair.ct is not None
        inside = drawn.ct_hu[number].clip(-1024, 2000)
        np.testing.assert_allclose(unit_to_linear(pair.ct, -1024, 2000)[0], inside, atol=1e-3)
    in_memory = [pair for pair in phantom_pairs(3, slices=3, size=64, seed=5) if pair.case == "case02"]
    for expected in in_memory:
        found = source.load("case02", expected.slice)
        np.testing.assert_array_equal(found.mr, expected.mr)
        np.testing.assert_array_equal(found.ct, expected.ct)


def test_says_of_itself_that_it_is_simulated(phantom: Path) -> None:
    for modality in ("ct", "mr"):
        header = dcmread(phantom / "train/case01" / modality / "0001.dcm", stop_before_pixels=True)
        assert header.PatientName == "Phantom^01"
        assert "SIMULATED" in header.SeriesDescription
        assert "SIMULATED" in header.ImageComments


def test_series_share_study_and_frame_of_reference(phantom: Path) -> None:
    headers = {path: dcmread(path, stop_before_pixels=True) for path in sorted(phantom.rglob("*.dcm"))}
    frames = {(path.parts[-3], h.FrameOfReferenceUID, h.StudyInstanceUID) for path, h in headers.items()}
    assert len(frames) == 3
    assert len({h.SeriesInstanceUID for h in headers.values()}) == 6
    assert len({h.SOPInstanceUID for h in headers.values()}) == len(headers) == 18


def test_second_run_writes_the_same_bytes(phantom: Path, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "again", patients=3, slices=3, size=64, seed=5)
    assert hashes(again) == hashes(phantom)


def test_dciodvfy_finds_no_error(phantom: Path) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    for path in sorted(phantom.glob("train/case01/*/*.dcm")):
        done = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        problems = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
        assert problems == []
    tool = shutil.which("dcentvfy")
    if tool is not None:
        files = [str(path) for path in sorted(phantom.glob("train/case01/*/*.dcm"))]
        done = subprocess.run([tool, *files], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    out = write_phantom(tmp_path / "p", patients=1, slices=1, size=16)
    before = hashes(out)
    with pytest.raises(InputError, match="exists already"):
        write_phantom(out, patients=1, slices=1, size=16, seed=1)
    assert hashes(out) == before
    write_phantom(out, patients=1, slices=1, size=16, seed=1, force=True)
    assert hashes(out) != before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("keep")
    (other / "sccg.toml").write_text("# mine\nsimulated = true\n")
    with pytest.raises(InputError, match="is not a phantom"):
        write_phantom(other, patients=1, slices=1, size=16, force=True)
    assert (other / "thesis.txt").read_text() == "keep"


def test_an_earlier_phantom_stays_until_the_new_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_phantom(tmp_path / "p", patients=1, slices=1, size=16)
    before, rename = hashes(out), Path.rename

    def fails(path: Path, target: Path) -> Path:
        if target == out and path.parent == tmp_path:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="No space left on device"):
        write_phantom(out, patients=1, slices=1, size=16, seed=1, force=True)
    assert hashes(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sccg_teacher_student.data.phantom_dicom as module

    calls = []

    def fails(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > 1:
            raise InputError("disk full")
        return phantom_case(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "phantom_case", fails)
    with pytest.raises(InputError, match="disk full"):
        write_phantom(tmp_path / "p", patients=2, slices=1, size=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"patients": 0}, {"slices": 0}, {"size": 30}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(InputError):
        write_phantom(tmp_path / "p", **{"patients": 1, "slices": 1, "size": 16, **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("patients", "counts"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (12, (8, 2, 2))])
def test_splits_are_by_patient(patients: int, counts: tuple[int, int, int]) -> None:
    found = [split_of(index, patients) for index in range(patients)]
    assert tuple(found.count(name) for name in ("train", "val", "test")) == counts


def test_without_splits(tmp_path: Path) -> None:
    source = open_data(write_phantom(tmp_path / "p", patients=2, slices=1, size=16, split=False))
    assert source.splits == {}
    assert source.cases == ("case01", "case02")


def test_a_link_gets_the_phantom_where_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large disk")
    for force in (False, True):
        write_phantom(tmp_path / "link", patients=1, slices=1, size=16, force=force)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "large disk" / "sccg.toml").is_file()


def test_what_else_lies_in_a_phantom_is_not_removed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_phantom(tmp_path / "p", patients=1, slices=1, size=16)
    (out / "runs").mkdir()
    with pytest.raises(InputError, match="holds runs, which is no part of a phantom"):
        write_phantom(out, patients=1, slices=1, size=16, force=True)
    monkeypatch.chdir(out)
    with pytest.raises(InputError, match="is the current folder"):
        write_phantom(Path(), patients=1, slices=1, size=16, force=True)
