"""Several processes that train one network: those that ``torchrun`` started; without it, this process alone.

The processes of a run draw the same batch and each takes its part of it, so what is learned does not depend on how
many there are (up to rounding). Only the first one writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # the first process may label or validate for long while the others wait


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started (gloo on CPUs, nccl on GPUs); alone, this does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(value: T) -> T:
    """The first process's value, on every process. All must call this together."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gathered(value: T) -> list[T]:
    """Every process's value, on every process. All must call this together."""
    values = [value] * processes()
    if processes() > 1:
        dist.all_gather_object(values, value)
    return values


def most(values: Tensor) -> Tensor:
    """The largest of each number over all processes. All must call this together."""
    if processes() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def wrapped(module: nn.Module) -> nn.Module:
    """``module`` with gradients averaged over all processes (DistributedDataParallel); alone, the module itself."""
    return module if processes() == 1 else DistributedDataParallel(module, forward_sync_buffers=False)


def mean(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes; gradients flow through it. All must call this together."""
    return values if processes() == 1 else _Mean.apply(values)  # type: ignore[no-untyped-call]


class _Mean(torch.autograd.Function):
    """Sum over processes forwards and backwards, both divided by their number."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return _averaged(values)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        return _averaged(gradients[0])


def _averaged(values: Tensor) -> Tensor:
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed / processes()
