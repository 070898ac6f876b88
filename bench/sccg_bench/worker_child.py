"""The child process of :mod:`sccg_bench.worker`: holds one model and answers one request at a time.

It imports as little as it can, because its peak memory is reported as the model's. Requests and answers are pickles
with a length in front, on the process's own stdin and stdout; whatever an engine prints goes to stderr instead.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sccg_bench.latency import LatencyPlan, time_block, warm_up
from sccg_bench.machine import peak_rss_mib
from sccg_bench.protocols import Call, Converter, Runnable
from sccg_runtime.errors import InputError, MissingDependencyError, one_line
from sccg_runtime.intensity import FloatArray

LENGTH = struct.Struct("<Q")
SEED = 20240607


def send(stream: BinaryIO, message: object) -> None:
    """Write one message."""
    data = pickle.dumps(message, protocol=5)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message, as it was sent by the process at the other end of our own pipe.

    Raises
    ------
    EOFError
        The other side is gone, perhaps in the middle of the message.
    """
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        raise EOFError
    length = LENGTH.unpack(header)[0]
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)  # noqa: S301 - both ends are this package


def noise(size: tuple[int, int]) -> FloatArray:
    """The slice that latency is measured with: (1, H, W) float32, uniform in [-1, 1], always the same."""
    values = np.random.default_rng(SEED).uniform(-1, 1, (1, *size))
    return values.astype(np.float32)


def checked(output: object, size: tuple[int, int]) -> FloatArray:
    """Return a model's output if it is a finite float32 slice (1, H, W).

    Raises
    ------
    InputError
        It is not.
    """
    if not isinstance(output, np.ndarray) or output.dtype != np.float32 or output.shape != (1, *size):
        found = f"{output.dtype} {output.shape}" if isinstance(output, np.ndarray) else type(output).__name__
        raise InputError(f"the output is {found}, not float32 (1, {size[0]}, {size[1]})")
    if not np.isfinite(output).all():
        raise InputError("the output holds values that are not finite (NaN or infinity)")
    return output


class Host:
    """One model, opened at one size at a time; the public methods are the requests."""

    def __init__(self, runnable: Runnable, threads: int) -> None:
        self._runnable, self._threads = runnable, threads
        self._call: Call | None = None
        self._size = (0, 0)

    def open(self, size: tuple[int, int]) -> dict[str, Any]:
        """Load the model for a size (dropping the one before), run it once; its description."""
        self._call = None
        gc.collect()
        self._call, self._size = self._runnable.open(size, self._threads), size
        self.run(noise(size))
        return dict(self._runnable.describe())

    def run(self, image: FloatArray) -> FloatArray:
        """One slice in, one out, checked."""
        if self._call is None:
            raise InputError("the model is not open")
        return np.array(checked(self._call(image), self._size))

    def warm_up(self, plan: LatencyPlan) -> bool:
        """See :func:`sccg_bench.latency.warm_up`."""
        return warm_up(self._query(), plan)

    def block(self, plan: LatencyPlan) -> list[float]:
        """See :func:`sccg_bench.latency.time_block`."""
        return time_block(self._query(), plan)

    def peak_rss_mib(self) -> float | None:
        """Peak resident memory of this process so far."""
        return peak_rss_mib()

    def device_p50_ms(self) -> float | None:
        """Median time on the device itself of all calls since it was opened; None where the host's clock is all."""
        times: list[float] = getattr(self._runnable, "device_times_ms", [])
        return float(np.median(times)) if times else None

    def convert(self, series: Path, out: Path) -> int:
        """DICOM series in, DICOM series out; how many slices it has."""
        if not isinstance(self._runnable, Converter):
            raise InputError("the model converts no series")
        return self._runnable.convert(series, out, self._threads)

    def _query(self) -> Callable[[], FloatArray]:
        if self._call is None:
            raise InputError("the model is not open")
        return partial(self._call, noise(self._size))


REQUESTS = ("open", "run", "warm_up", "block", "peak_rss_mib", "device_p50_ms", "convert")


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other side closes the pipe; then end at once, even in the middle of a query.

    So no child outlives its parent, whatever ended that. An exception is an answer, too.
    """
    waiting: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                waiting.put(receive(requests))
        except EOFError:
            os._exit(0)

    threading.Thread(target=listen, daemon=True, name="requests").start()
    host: Host | None = None
    while True:
        name, arguments = waiting.get()
        try:
            if name == "load":
                data, threads, cores = arguments
                if cores is not None:
                    os.sched_setaffinity(0, cores)
                host = Host(pickle.loads(data), threads)  # noqa: S301 - pickled by our own parent process
                answer: Any = None
            elif host is None or name not in REQUESTS:
                raise InputError(f"request {name!r} is not known")
            else:
                answer = getattr(host, name)(*arguments)
        except Exception as error:
            send(answers, ("failed", (one_line(error), isinstance(error, MissingDependencyError))))
        else:
            send(answers, ("done", answer))


def main() -> None:
    """Take stdin and stdout for requests and answers, and give engines stderr to print on."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(requests, answers)


if __name__ == "__main__":
    main()
