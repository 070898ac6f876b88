"""What is here and what is missing is told for every target, whatever is missing."""

from __future__ import annotations

from typing import get_args

import pytest

from sccg_export import requirements
from sccg_export.requirements import REQUIREMENTS, driver_cuda_version, examine, why_not
from sccg_export.targets import TARGETS, load_target
from sccg_runtime.contract import Precision, Target
from sccg_runtime.errors import InputError, MissingDependencyError

only = pytest.mark.parametrize


@only("target", get_args(Target))
def test_every_target_is_examined(target: Target) -> None:
    status = examine(target)
    assert tuple(status.versions) == REQUIREMENTS[target].packages
    assert tuple(status.precisions) == REQUIREMENTS[target].precisions
    assert target in TARGETS
    for name, found in status.versions.items():
        assert (found is None) == any(line.startswith(f"{name}: pip install") for line in status.missing)


def test_the_cpu_targets_are_whole_here() -> None:
    for target in ("openvino", "ort"):
        status = examine(target)  # type: ignore[arg-type]
        assert status.missing == ()
        assert None not in status.versions.values()
        assert status.precisions["fp32"] is status.precisions["int8"] is None


@only("target", list(TARGETS))
def test_a_missing_package_is_one_line_that_says_how_to_get_it(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "installed", lambda name: None)
    monkeypatch.setattr(requirements, "driver_cuda_version", lambda: "13.0")
    status = examine(target)
    assert len(status.missing) >= len(REQUIREMENTS[target].packages)
    for reason in status.precisions.values():
        assert reason is not None
        assert reason.endswith(REQUIREMENTS[target].install)
    with pytest.raises(InputError, match="which is not installed: pip install"):
        load_target(target, "fp32")


def test_an_openvino_that_does_not_load_is_told_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> frozenset[str]:
        raise MissingDependencyError("openvino does not load")

    monkeypatch.setattr(requirements, "cpu_capabilities", broken)
    assert examine("openvino").precisions["bf16"] == "openvino does not load"


@only(("capabilities", "expected"), [({"FP32", "BF16"}, True), ({"FP32", "INT8"}, False)])
def test_bf16_depends_on_the_cpu(capabilities: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "cpu_capabilities", lambda: frozenset(capabilities))
    others: list[Precision] = ["fp32", "fp16", "int8"]
    assert (why_not("openvino", "bf16") is None) is expected
    assert [why_not("openvino", name) for name in others] == [None] * 3


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(requirements.ctypes, "CDLL", no_library)
    assert driver_cuda_version() is None
    assert "NVIDIA driver: install that of your card" in examine("tensorrt-rtx").missing
    assert examine("ort").missing == ()
