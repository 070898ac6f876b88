"""Time on the GPU itself, by CUDA events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def event_time(times_ms: list[float]) -> Iterator[None]:
    """Append how long the GPU needs for what is started inside, in ms, and wait for it.

    By two events on the current CUDA stream: neither the host's time nor a gap before the work counts.
    """
    start, stop = (_event() for _ in range(2))
    start.record()
    yield
    stop.record()
    stop.synchronize()
    times_ms.append(float(start.elapsed_time(stop)))


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
