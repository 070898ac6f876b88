"""Logs that grow while a run goes on: a CSV file by lines, and scalars for TensorBoard.

Both are written at once and in this thread, so that a full disk is told where it happens.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from sccg_runtime.files import naming


def append_row(path: Path, names: Sequence[str], values: Sequence[object]) -> None:
    """Add a line to a CSV file, whole or not at all; ``names`` head a new file.

    Raises
    ------
    OSError
        The disk is full, and the like.
    """
    size = path.stat().st_size if path.is_file() else 0
    text = io.StringIO(newline="")
    csv.writer(text).writerows([values] if size else [names, values])
    with naming(path):
        try:
            with path.open("ab") as file:
                file.write(text.getvalue().encode())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


class Board:
    """A new file of TensorBoard events in ``folder``; close it by ``with``.

    tensorboardX's own SummaryWriter writes in a thread, and once more when Python ends: a full disk then gives a
    traceback, or waits for ever.
    """

    def __init__(self, folder: Path) -> None:
        self.path = (
            folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{time.time_ns()}"
        )
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
