"""``sccg-compress doctor``: a table and JSON, with everything here and with nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from command_line import Cli

HIDDEN = ("openvino", "nncf", "onnxruntime", "onnx", "tensorrt_rtx", "torch", "torch_tensorrt")
WITHOUT = f"""
import sys
from importlib import metadata
for name in {HIDDEN!r}:
    sys.modules[name] = None
def missing(name):
    raise metadata.PackageNotFoundError(name)
import sccg_export.requirements as requirements
requirements.version = missing
sys.argv = ["sccg-compress", "doctor", *sys.argv[1:]]
from sccg_compress.cli import main
main()
"""


def test_the_table_names_every_target_with_what_is_here(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = run("doctor")
    assert said.code == 0, said
    for part in ("openvino", "ort", "tensorrt-rtx", "tensorrt", "CPU, as OpenVINO sees it", "NVIDIA driver"):
        assert part in said.out
    assert f"onnxruntime {version('onnxruntime')}" in said.out
    assert f"nncf {version('nncf')}" in said.out


def test_json_says_which_precisions_this_cpu_has(run: Cli) -> None:
    said = run("doctor", "--json", "-")
    told = json.loads(said.out)
    targets = {one["target"]: one for one in told["targets"]}
    assert list(targets) == ["openvino", "ort", "tensorrt-rtx", "tensorrt"]
    assert targets["ort"]["precisions"] == {"fp32": None, "int8": None}
    assert (targets["openvino"]["precisions"]["bf16"] is None) == ("BF16" in told["cpu_capabilities"])
    assert set(targets["tensorrt"]["precisions"]) == {"fp32", "fp16"}
    assert "even to import" in targets["tensorrt"]["needs"]
    for reason in targets["tensorrt"]["precisions"].values():
        assert (told["nvidia_driver_cuda"] is not None) or "--target tensorrt-rtx builds without one" in reason
    assert targets["openvino"]["quantizers"] | {"inc": None} == {"nncf": None, "ort": None, "inc": None}


@pytest.mark.parametrize("arguments", [(), ("--json", "-")])
def test_it_ends_well_where_every_package_is_missing(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if not arguments:
        assert "not known, OpenVINO is missing" in done.stdout
        assert "not here: target ort needs onnxruntime" in " ".join(done.stdout.split())
        return
    told = json.loads(done.stdout)
    assert told["cpu_capabilities"] is None
    for one in told["targets"]:
        assert set(one["versions"].values()) == {None}
        assert all(reason is not None for reason in one["precisions"].values())
        assert any("pip install" in line for line in one["missing"])
