"""Scalars for TensorBoard, written at once and in this thread, so that a full disk is told where it happens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from sccg_runtime.files import naming


class Board:
    """A new file of TensorBoard events in ``folder``; close it by ``with``.

    tensorboardX's own SummaryWriter writes in a thread, and once more when Python ends: a full disk then gives a
    traceback, or waits for ever.
    """

    def __init__(self, folder: Path) -> None:
        now = time.time_ns()
        self.path = folder / f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now}"
        self._writer = RecordWriter(str(self.path))
        self._write(Event(file_version="brain.Event:2"))

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``GROUP/NAME`` of a step, for each of ``values`` by name (OSError where the disk is full)."""
        scalars = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=scalars)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # of what could not be written before
            self._writer.close()
