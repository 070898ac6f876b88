"""The standalone folder converts where there is no Python, as the installed program does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless

BUILD = Path(__file__).parents[1] / "standalone" / "build.py"
MAX_BYTES = 300_000_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("PyInstaller") is None, reason="PyInstaller is not installed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The built folder, and the table that the builder printed."""
    out = tmp_path_factory.mktemp("standalone") / "moved here"
    built = out.with_name("built")
    table = subprocess.run([sys.executable, BUILD, built], check=True, capture_output=True, text=True).stdout
    built.rename(out)  # it must not depend on where it was built
    return out, table


def run(folder, *arguments, code=0):
    """Run the standalone program with an empty environment."""
    program = folder / ("sccg-runtime.exe" if sys.platform == "win32" else "sccg-runtime")
    result = subprocess.run([program, *arguments], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    return result


def test_it_holds_no_links_nothing_unused_and_stays_within_its_size(folder):
    where, table = folder
    files = [path for path in where.rglob("*") if path.is_file()]
    assert not [path for path in where.rglob("*") if path.is_symlink()]
    names = " ".join(path.relative_to(where).as_posix() for path in files)
    for unused in ("gpu_plugin", "npu_plugin", "onnx_frontend", "pytorch_frontend", "telemetry", "torch", "_ssl"):
        assert unused not in names
    size = sum(path.stat().st_size for path in files)
    assert size <= MAX_BYTES
    assert table.splitlines()[-1].split() == [f"{size / 1e6:.1f}", "MB", "all"]
    assert "openvino_intel_cpu_plugin" in table.splitlines()[0]


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_it_converts_as_the_installed_program_does(folder, bundle_file, series, tmp_path, make, syntax):
    source, bundle = series(), bundle_file()
    if syntax is not None:
        for path in source.iterdir():
            image = dcmread(path)
            image.compress(syntax, generate_instance_uid=False)
            make.save(image, path)
    here, there = tmp_path / "out here", tmp_path / "out there"
    command = [sys.executable, "-m", "sccg_runtime", "convert", source, here, "--bundle", bundle, "--json", "-"]
    expected = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = json.loads(run(folder[0], "convert", source, there, "--bundle", bundle, "--json", "-").stdout)
    for name in ("slices", "series", "warnings", "input_range", "bundle_sha256", "engine"):
        assert found[name] == expected[name]
    made = sorted(there.iterdir())
    assert [path.name for path in made] == sorted(path.name for path in here.iterdir())
    new = {"SOPInstanceUID", "SeriesInstanceUID", "InstanceCreationTime", "SeriesTime", "ContentTime"}
    new |= {"InstanceCreationDate", "SeriesDate", "ContentDate", "ContributingEquipmentSequence"}
    for path in made:
        one, other = dcmread(path), dcmread(here / path.name)
        assert {item.keyword: item.value for item in one if item.keyword not in new} == {
            item.keyword: item.value for item in other if item.keyword not in new
        }


def test_its_other_commands_and_errors_are_those_of_the_installed_program(folder, bundle_file, tmp_path):
    bundle = bundle_file()
    assert "passed" in run(folder[0], "selftest", bundle).stdout
    assert bundle.name in run(folder[0], "info", bundle).stdout
    result = run(folder[0], "convert", tmp_path / "none", tmp_path / "out", "--bundle", bundle, code=2)
    assert result.stderr.startswith("error: none: no such folder")


def test_it_writes_nifti_where_it_was_built_with_nibabel(folder, bundle_file, series, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="nibabel (extra nifti) is not installed")
    out = tmp_path / "ct.nii.gz"
    run(folder[0], "convert", series(), out, "--bundle", bundle_file(), "--format", "nifti")
    assert nibabel.load(out).shape == (64, 64, 5)


def test_another_folder_is_never_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    result = subprocess.run([sys.executable, BUILD, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.endswith("is no earlier build: name another folder\n")
    assert (tmp_path / "precious.txt").read_text() == "mine"
