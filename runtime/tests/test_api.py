import ast
import contextlib
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import sccg_runtime
from sccg_runtime import Contract, convert_series, load
from sccg_runtime.bundle import Bundle
from sccg_runtime.dicom.quiet import QUIET_PYDICOM
from sccg_runtime.errors import BundleError, SeriesError


def test_the_three_names_convert_a_series(bundle_file, series, tmp_path):
    bundle = load(str(bundle_file()))
    assert isinstance(bundle.contract, Contract)
    said = []
    result = convert_series(series(), tmp_path / "out", bundle, series="HEAD", notify=said.append)
    assert result.slices == len(list((tmp_path / "out").iterdir())) == 5
    assert result.to_dict()["bundle_sha256"] == bundle.sha256
    assert said[0].startswith("converting series 3")


def test_errors_are_those_of_the_tree(bundle_file, series, tmp_path):
    with pytest.raises(BundleError):
        load(tmp_path / "none.sccg")
    with pytest.raises(SeriesError, match="fewer than 9 slices"):
        convert_series(series(), tmp_path / "out", load(bundle_file()), min_slices=9)


def test_importing_the_package_imports_nothing_heavy_until_a_name_is_used():
    code = """
import sys
import sccg_runtime
assert set(sccg_runtime.__all__) == {"Contract", "convert_series", "load"} <= set(dir(sccg_runtime))
assert not {"numpy", "pydicom", "openvino"} & set(sys.modules)
sccg_runtime.load
assert not {"openvino", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sccg_runtime.nothing


def test_every_name_says_what_it_raises_and_shows_an_example():
    for name in (load, convert_series, Bundle.selftest):
        for heading in ("Parameters", "Returns", "Raises", "Example"):
            assert heading in name.__doc__


def test_the_command_line_uses_the_three_names_and_what_they_give_alone():
    found = set()
    tree = ast.parse(Path(sccg_runtime.__file__).with_name("cli.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names if item.name.startswith("sccg_runtime")}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("sccg_runtime"):
            found |= {f"{node.module}.{item.name}" for item in node.names}
    plain = {"__version__", "errors.InputError", "errors.SccgError", "files.write_text"}
    for_type_checkers = {"options.ConvertResult"}
    assert found == {f"sccg_runtime.{name}" for name in {"convert_series", "load"} | plain | for_type_checkers}


def test_showing_and_checking_a_bundle_imports_nothing_that_converts(bundle_file):
    code = """
import sys
from sccg_runtime.cli import main
path, heavy = sys.argv[1], {"PIL", "nibabel", "pydicom", "torch"}
assert main(["info", path]) == 0
assert not (heavy | {"openvino"}) & set(sys.modules)
assert main(["selftest", path, "--threads", "1"]) == 0
assert not heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, bundle_file()], check=True)


def test_pydicom_is_quiet_until_the_last_of_overlapping_conversions_ends():
    logger = logging.getLogger("pydicom")
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    for conversion in (first, second):
        conversion.enter_context(QUIET_PYDICOM)
    with warnings.catch_warnings(record=True) as caught:
        first.close()
        warnings.warn("Invalid value: Muster", UserWarning, stacklevel=1)
        assert (logger.propagate, caught) == (False, [])
    second.close()
    assert logger.propagate
