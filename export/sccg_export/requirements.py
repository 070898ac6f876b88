"""What each target needs, what of it is here, and how to get the rest. Imports no engine before it is asked."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, Literal

from sccg_runtime.contract import Precision, Target
from sccg_runtime.engine import cpu_capabilities
from sccg_runtime.errors import MissingDependencyError

Quantizer = Literal["nncf", "ort", "inc"]
# Quantiser -> (its distribution, the command that brings it).
QUANTIZERS: Mapping[Quantizer, tuple[str, str]] = MappingProxyType(
    {
        "nncf": ("nncf", "pip install ."),
        "ort": ("onnxruntime", "pip install ."),
        "inc": ("neural-compressor-pt", "pip install '.[inc]'"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a target needs.

    Attributes
    ----------
    packages
        Distributions, as pip names them.
    install
        The command that brings them.
    precisions
        That the target can be asked for.
    quantizers
        That ``int8`` can be asked for with, the default first; empty where there is no choice.
    driver
        What an NVIDIA driver is needed for, or empty.
    builds_on_gpu
        Whether export itself needs it, and PyTorch with CUDA.
    """

    packages: tuple[str, ...]
    install: str
    precisions: tuple[Precision, ...]
    quantizers: tuple[Quantizer, ...] = ()
    driver: str = ""
    builds_on_gpu: bool = False


REQUIREMENTS: Mapping[Target, Requirements] = MappingProxyType(
    {
        "openvino": Requirements(
            packages=("openvino", "nncf"),
            install="pip install .",
            precisions=("fp32", "fp16", "bf16", "int8"),
            quantizers=("nncf", "ort", "inc"),
        ),
        "ort": Requirements(
            packages=("onnxruntime",),
            install="pip install .",
            precisions=("fp32", "int8"),
            quantizers=("ort", "inc"),
        ),
        "tensorrt-rtx": Requirements(
            packages=("tensorrt-rtx-cu12",),
            install="pip install '.[rtx]'",
            precisions=("fp32", "fp16", "int8"),
            driver="to run engines and measure their drift; not to build them",
        ),
        "tensorrt": Requirements(
            packages=("torch-tensorrt",),
            install="pip install '.[gpu]'",
            precisions=("fp32", "fp16"),
            driver="even to import torch_tensorrt",
            builds_on_gpu=True,
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A target on this machine.

    Attributes
    ----------
    target
        Its name.
    needs
        In words.
    versions
        Of each package; None where it is missing.
    missing
        What is not here and how to get it, one line each.
    precisions
        Precision -> None where it can be exported here, else why not.
    quantizers
        The same for what ``int8`` can be made with.
    """

    target: Target
    needs: str
    versions: dict[str, str | None]
    missing: tuple[str, ...]
    precisions: dict[Precision, str | None]
    quantizers: dict[Quantizer, str | None]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine(target: Target) -> Status:
    """Look for what a target needs; a package that is missing or broken is told, never raised."""
    needed = REQUIREMENTS[target]
    found = {name: installed(name) for name in needed.packages}
    missing = [f"{name}: {needed.install}" for name, one in found.items() if one is None]
    if needed.driver and driver_cuda_version() is None:
        missing.append("NVIDIA driver: install that of your card")
    elif needed.driver and (reason := _no_cuda()) is not None:
        missing.append(reason)
    if needed.builds_on_gpu and (reason := _other_torch()) is not None:
        missing.append(reason)
    needs = ", ".join(needed.packages) + (f"; NVIDIA driver {needed.driver}" if needed.driver else "")
    precisions = {name: why_not(target, name) for name in needed.precisions}
    return Status(
        target=target,
        needs=needs,
        versions=found,
        missing=tuple(missing),
        precisions=precisions,
        quantizers={name: why_no_quantizer(name) for name in needed.quantizers},
    )


def why_not(target: Target, precision: Precision) -> str | None:
    """Why a precision cannot be exported here, in one line; None if it can."""
    needed = REQUIREMENTS[target]
    if needed.builds_on_gpu and driver_cuda_version() is None:
        return (
            f"target {target} builds on an NVIDIA GPU, and no driver is here: --target tensorrt-rtx builds without one"
        )
    lacking = [name for name in needed.packages if installed(name) is None]
    if lacking:
        return f"target {target} needs {', '.join(lacking)}, which is not installed: {needed.install}"
    if needed.builds_on_gpu and (reason := _no_cuda() or _other_torch()) is not None:
        return f"target {target} cannot build here: {reason}"
    if precision != "bf16":
        return None
    try:
        known = cpu_capabilities()
    except MissingDependencyError as error:
        return str(error)
    if "BF16" in known:
        return None
    return (
        "this CPU computes no bf16 (OpenVINO's OPTIMIZATION_CAPABILITIES lack BF16, or ONEDNN_MAX_CPU_ISA rules it "
        "out): ask for --fp32, --fp16 or --int8"
    )


def _no_cuda() -> str | None:
    if "+cpu" not in (installed("torch") or ""):
        return None
    return "PyTorch with CUDA: pip install --force-reinstall torch, of the same version without +cpu"


def _other_torch() -> str | None:
    """What to do where torch-tensorrt is not of the same minor version as torch, which it must be."""
    torch, bridge = installed("torch"), installed("torch-tensorrt")
    if torch is None or bridge is None or torch.split(".")[:2] == bridge.split(".")[:2]:
        return None
    wanted = ".".join(torch.split(".")[:2])
    return f"torch-tensorrt {wanted}, as torch {torch}, instead of {bridge}: pip install 'torch-tensorrt=={wanted}.*'"


def why_no_quantizer(quantizer: Quantizer) -> str | None:
    """Why a quantiser cannot be used here, in one line; None if it can."""
    package, install = QUANTIZERS[quantizer]
    if installed(package) is not None:
        return None
    return f"quantizer {quantizer} needs {package}, which is not installed: {install}"


def quantizer_version(quantizer: Quantizer) -> str:
    """Name and version, such as ``"nncf 3.4.0"``."""
    return f"{quantizer} {installed(QUANTIZERS[quantizer][0])}"


def installed(name: str) -> str | None:
    """Version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def driver_cuda_version() -> str | None:
    """CUDA version that the NVIDIA driver supports, such as ``"12.8"``; None where there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    number, devices = ctypes.c_int(0), ctypes.c_int(0)
    works = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(devices)) == 0
    if not works or devices.value == 0 or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
