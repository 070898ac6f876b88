"""On what and in which numbers PyTorch computes: float32 that is float32, or a shorter type, and what that gains."""

from __future__ import annotations

import copy
import os
import time
from contextlib import AbstractContextManager

import torch
from torch import nn

from sccg_runtime.engine import cpu_capabilities
from sccg_runtime.errors import InputError


def without_tf32() -> AbstractContextManager[None]:
    """While open, cuDNN convolutions compute in full float32 (a TF32 product has 10 bits of mantissa).

    On Ampere and newer cards PyTorch lets them round to TF32 by default.
    """
    cudnn = torch.backends.cudnn
    manager: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return manager


def cpu_computes_bf16() -> bool:
    """Whether OpenVINO finds bfloat16 arithmetic in this CPU (AVX512-BF16 or AMX)."""
    return "BF16" in cpu_capabilities()


def choose_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Type of autocast for ``auto`` (bfloat16 where the hardware has it), ``off``, ``bf16`` or ``fp16``.

    Raises
    ------
    InputError
        The name is none of these.
    """
    if name == "auto":
        on_gpu = device.type == "cuda"
        computed = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_computes_bf16()
        return torch.bfloat16 if computed else None
    known = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in known:
        raise InputError(f"--amp {name!r} is none of auto, off, bf16, fp16")
    return known[name]


def amp_name(amp: torch.dtype | None) -> str:
    """``off``, ``bfloat16`` or ``float16``."""
    return "off" if amp is None else str(amp).removeprefix("torch.")


def slices_per_second(
    network: nn.Module, size: tuple[int, int], device: torch.device, amp: torch.dtype | None, rounds: int = 2
) -> tuple[float, float]:
    """Forward and backward passes of single slices per second: (plain float32, ``amp`` with channels last).

    Both in turns, after one pass each that does not count; the best of ``rounds``.
    """
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    chosen = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    best = [float("inf"), float("inf")]
    for number in range(rounds + 1):
        for place, (one, kind, order) in enumerate(
            ((plain, None, torch.contiguous_format), (chosen, amp, torch.channels_last))
        ):
            image = torch.zeros(1, 1, *size, device=device).contiguous(memory_format=order)
            started = time.perf_counter()
            with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
                output = one(image)
            output.float().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                best[place] = min(best[place], time.perf_counter() - started)
    return 1 / best[0], 1 / best[1]


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where it is; asking for ``cuda`` without one is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is none of auto, cpu, cuda")
    return torch.device(name)


def use_cores() -> None:
    """Let PyTorch use the CPUs that this process may run on; those of one machine share them."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    torch.set_num_threads(max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
