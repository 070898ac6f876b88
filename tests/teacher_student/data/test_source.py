"""Opening folders: kinds, splits, pairing, and what is refused."""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sccg_runtime.errors import InputError
from sccg_runtime.resample import resize
from sccg_teacher_student.data.phantom_dicom import write_phantom
from sccg_teacher_student.data.source import open_data, open_unpaired

PngCases = Callable[..., Path]
WritePng = Callable[..., Path]
SETTINGS = """spacing_mm = {spacing}
[mr]
kind = "percentile"
percentile = 99.5
foreground_above = 0.0588
level = 0.9216
[ct]
kind = "display"
"""


def test_cases_with_splits(png_cases: PngCases) -> None:
    source = open_data(png_cases("train/a2", "train/a10", "val/b"))
    assert source.kind == "png"
    assert source.splits == {"train": ("a2", "a10"), "val": ("b",)}
    assert source.cases == ("a2", "a10", "b")
    assert source.slices("b") == ("001", "002")
    assert source.settings.assumed
    assert source.spacing_mm() is None
    assert not source.simulated
    pair = source.load("b", "002")
    assert (pair.case, pair.slice) == ("b", "002")
    assert pair.mr is not None
    assert pair.mr.shape == (1, 8, 12)
    assert len(list(source.pairs())) == 6
    assert len(list(source.pairs(["a2"]))) == 2


def test_slices_are_resampled_over_their_whole_area(png_cases: PngCases) -> None:
    root = png_cases("a")
    (root / "sccg.toml").write_text(SETTINGS.format(spacing="[1.0, 0.5]"))
    source = replace(open_data(root), size=(16, 24))
    stored, seen = (next(one.pairs()) for one in (open_data(root), source))
    for before, after in ((stored.mr, seen.mr), (stored.ct, seen.ct)):
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after[0], resize(before[0], (16, 24)))
    assert source.spacing_mm() == (0.5, 0.25), "the same millimetres over 8x12 and 16x24 pixels"
    with pytest.raises(InputError, match="a/001 is 8x12 pixels: resampled to 16x16 it would be stretched"):
        replace(source, size=(16, 16)).load("a", "001")


def test_series_of_several_sizes_are_resampled_to_one_spacing(tmp_path: Path) -> None:
    root, other = (
        write_phantom(tmp_path / f"{size}", patients=1, slices=2, size=size, split=False) for size in (32, 64)
    )
    (other / "case01").rename(root / "case02")
    settings = root / "sccg.toml"
    settings.write_text(re.sub("spacing_mm = .*", 'spacing_mm = "unknown"', settings.read_text()))
    source = open_data(root)
    with pytest.raises(InputError, match="resample all cases to one spacing"):
        source.spacing_mm()
    seen = replace(source, size=(48, 48))
    small, large = (seen.spacing_mm([case]) for case in seen.cases)
    assert small == pytest.approx(large)
    assert seen.spacing_mm() == small


def test_slices_of_several_sizes_in_a_case_have_no_common_spacing(png_cases: PngCases, write_png: WritePng) -> None:
    root = png_cases("a")
    for modality in ("mr", "ct"):
        write_png(root / "a" / modality / "002.png", np.zeros((16, 24), np.uint8))
    source = replace(open_data(root), size=(32, 48))
    shapes = {image.shape for pair in source.pairs() for image in (pair.mr, pair.ct) if image is not None}
    assert shapes == {(1, 32, 48)}
    assert source.spacing_mm() is None, "a PNG does not say it"
    (root / "sccg.toml").write_text(SETTINGS.format(spacing="1.0"))
    with pytest.raises(InputError, match="a has slices of 8x12, 16x24 pixels: they have no common spacing"):
        replace(open_data(root), size=(32, 48)).spacing_mm()


def test_a_source_survives_pickling(png_cases: PngCases, phantom: Path) -> None:
    for folder in (png_cases("a"), phantom):
        source = open_data(folder)
        case = source.cases[0]
        name = source.slices(case)[0]
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301
        np.testing.assert_array_equal(copy.load(case, name).mr, source.load(case, name).mr)


def test_hidden_files_and_leftovers_are_ignored(png_cases: PngCases) -> None:
    root = png_cases("a")
    for junk in ("Thumbs.db", ".DS_Store", "a/mr/._001.png", "a/mr/Thumbs.db", "a/ct/.hidden.png", "__MACOSX/x"):
        path = root / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    source = open_data(root)
    assert source.cases == ("a",)
    assert source.slices("a") == ("001", "002")


def test_slices_without_partner_are_counted_not_dropped_silently(
    png_cases: PngCases, caplog: pytest.LogCaptureFixture
) -> None:
    root = png_cases("a", slices=4)
    (root / "a/mr/002.png").unlink()
    (root / "a/ct/004.png").unlink()
    source = open_data(root)
    with caplog.at_level(logging.WARNING):
        assert source.slices("a") == ("001", "003")
    assert "2 slices have no partner and are left out: mr/004, ct/002" in caplog.text
    assert source.load("a", "002").mr is None


def test_a_case_of_one_modality_gives_half_pairs(png_cases: PngCases) -> None:
    root = png_cases("a")
    shutil.rmtree(root / "a/ct")
    source = open_data(root)
    pair = source.load("a", source.slices("a")[0])
    assert pair.mr is not None
    assert pair.ct is None


def test_unpaired_folder(tmp_path: Path, write_png: WritePng) -> None:
    write_png(tmp_path / "c1/001.png", np.zeros((4, 4), np.uint8))
    write_png(tmp_path / "c1/010.png", np.zeros((4, 4), np.uint8))
    source = open_unpaired(tmp_path, "MR")
    assert source.slices("c1") == ("001", "010")
    pair = source.load("c1", "010")
    assert pair.ct is None
    assert pair.mr is not None
    with pytest.raises(InputError, match="no cases here"):
        open_data(tmp_path)


def test_one_side_of_a_paired_folder(png_cases: PngCases) -> None:
    source = open_unpaired(png_cases("a"), "CT")
    pair = source.load("a", "001")
    assert pair.mr is None
    assert pair.ct is not None


def test_a_split_folder_takes_the_settings_above_it(png_cases: PngCases, phantom: Path) -> None:
    root = png_cases("train/a", "val/b")
    shutil.copy(phantom / "sccg.toml", root)
    source = open_data(root / "train")
    assert not source.settings.assumed
    assert source.splits == {}
    assert source.cases == ("a",)


def test_folders_beside_the_splits_are_told(png_cases: PngCases, caplog: pytest.LogCaptureFixture) -> None:
    root = png_cases("train/a", "validation/b", "val/c")
    with caplog.at_level(logging.WARNING):
        assert open_data(root).cases == ("a", "c")
    assert "beside train/, val/ or test/ are left out: validation" in caplog.text


def test_a_single_case_takes_the_settings_above_it(phantom: Path, tmp_path: Path) -> None:
    for case in (phantom / "train" / "case01", tmp_path / "data" / "Train" / "case01", tmp_path / "data" / "case01"):
        if not case.exists():
            shutil.copytree(phantom / "train" / "case01", case)
            shutil.copy(phantom / "sccg.toml", tmp_path / "data" / "sccg.toml")
        source = open_data(case)
        assert source.settings.spacing_mm == open_data(phantom).settings.spacing_mm
        assert source.simulated, "a phantom is not called real because one case of it was asked for"
        assert source.cases == ("case01",)
    source = open_data(tmp_path / "data" / "Train")
    assert source.simulated


def test_given_settings_win_but_simulated_stays(phantom: Path, tmp_path: Path) -> None:
    given = tmp_path / "my.toml"
    text = (phantom / "sccg.toml").read_text(encoding="utf-8")
    given.write_text(text.replace("simulated = true", "").replace("high_hu = 2000", "high_hu = 976"), encoding="utf-8")
    source = open_data(phantom, settings=given)
    assert source.settings.ct.window_hu == (-1024, 976)
    assert source.simulated


def test_sizes_that_differ_within_a_pair_are_refused(png_cases: PngCases, write_png: WritePng) -> None:
    root = png_cases("a")
    write_png(root / "a/ct/002.png", np.zeros((8, 8), np.uint8))
    source = open_data(root)
    with pytest.raises(InputError, match="slice 002: mr is 8x12, ct is 8x8"):
        source.load("a", "002")


def refused(root: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_data(root)
    assert "\n" not in str(caught.value)


def test_folders_that_are_refused(png_cases: PngCases, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such folder")
    file = tmp_path / "file"
    file.write_text("x")
    refused(file, "not a folder")
    (tmp_path / "empty/notes").mkdir(parents=True)
    refused(tmp_path / "empty", "no cases here; looked for .* found notes/")
    refused(png_cases("train/a", "test/a", root="leak"), "the same case is also in")
    refused(png_cases("train/a", "b", root="beside"), "cases beside the split folders")
    hollow = png_cases("train/a", root="hollow")
    (hollow / "val").mkdir()
    refused(hollow, "val: holds no case")
    jpeg = tmp_path / "jpeg/a/mr"
    jpeg.mkdir(parents=True)
    (jpeg / "001.jpg").write_bytes(b"x")
    refused(tmp_path / "jpeg", "neither PNG nor DICOM slices")


def test_mixed_kinds_are_refused(png_cases: PngCases, phantom: Path) -> None:
    root = png_cases("a")
    shutil.copytree(phantom / "train/case01", root / "b")
    refused(root, "kinds are mixed, a is png and b is dicom")


def test_nothing_in_common_is_refused(png_cases: PngCases) -> None:
    root = png_cases("a", slices=1)
    (root / "a/ct/001.png").rename(root / "a/ct/image1.png")
    with pytest.raises(InputError, match="1 MR and 1 CT slices with none in common"):
        open_data(root).slices("a")


def test_unknown_names_are_refused(png_cases: PngCases) -> None:
    source = open_data(png_cases("a"))
    with pytest.raises(InputError, match="no case 'z'"):
        source.slices("z")
    with pytest.raises(InputError, match=r"no slice 099\.png"):
        source.load("a", "099")


def test_data_imports_without_torch() -> None:
    names = "cases dicom nifti phantom phantom_dicom png settings source splits"
    code = "import sys, importlib\n"
    code += f"for n in '{names}'.split(): importlib.import_module('sccg_teacher_student.data.' + n)\n"
    code += "assert not {'torch', 'nibabel', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_real_data_opens() -> None:
    root = os.environ.get("SCCG_TEST_DATA")
    if not root:
        pytest.skip("SCCG_TEST_DATA is not set: no real data to read")
    folder = Path(root) / "data" / "aanlib"
    if not folder.is_dir():
        pytest.skip(f"SCCG_TEST_DATA has no {folder}")
    source = open_data(folder)
    assert set(source.splits) == {"train", "val"}
    for case in source.cases:
        pair = source.load(case, source.slices(case)[0])
        assert pair.mr is not None
        assert pair.ct is not None
        assert pair.mr.shape == pair.ct.shape == (1, 256, 256)
        assert pair.mr.min() >= -1
        assert pair.ct.max() <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are text")
def test_a_name_that_is_no_text_is_told_before_any_work(png_cases: PngCases) -> None:
    data = png_cases("p05")
    (data / "p05").rename(data / os.fsdecode(b"M\xfcller"))
    with pytest.raises(InputError, match=r"M\\udcfcller' is not UTF-8: rename it"):
        open_data(data)
