"""Float32 that is float32: on Ampere and newer cards PyTorch lets cuDNN's convolutions round to TF32 by default."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def without_tf32() -> AbstractContextManager[None]:
    """While open, cuDNN convolutions compute in full float32 (a TF32 product has 10 bits of mantissa)."""
    cudnn = torch.backends.cudnn
    manager: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return manager
