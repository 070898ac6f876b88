"""One child process per model: thread pools of different engines disturb each other, and memory is the model's own.

The parent talks to it through pipes; a child that dies, hangs or raises becomes a :class:`WorkerError` with one line,
and never takes the others with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self, cast

from sccg_bench.latency import LatencyPlan
from sccg_bench.protocols import Runnable
from sccg_bench.worker_child import receive, send
from sccg_runtime.errors import SccgError, one_line
from sccg_runtime.intensity import FloatArray

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
TIMEOUT_S = 600.0
_CLOSING_S = 5.0


class WorkerError(SccgError):
    """A model failed in its process. ``not_here``: what it needs is not on this machine, which is no failure."""

    def __init__(self, reason: str, not_here: bool = False) -> None:
        super().__init__(reason)
        self.not_here = not_here


class Worker:
    """A model in a process of its own; idle, without a turn of the processor, between requests.

    Parameters
    ----------
    runnable
        Pickled into the child, so its class must be importable there; the child has this process's ``sys.path``.
    threads
        CPU threads of the engine; also set as ``OMP_NUM_THREADS`` and the like before the child imports anything.
    timeout_s
        Longest time that one request may take; then the child is killed.
    environment
        Variables that the child has beside this process's, from before it imports anything.
    cores
        Logical processors that the child may run on; None: those of this process.

    Raises
    ------
    WorkerError
        From every method: the model raised, died, or took too long.

    Example
    -------
    >>> with Worker(runnable, threads=2) as worker:  # doctest: +SKIP
    ...     worker.open((512, 512))
    ...     worker.warm_up(plan)
    ...     worker.block(plan)
    """

    def __init__(
        self,
        runnable: Runnable,
        threads: int,
        timeout_s: float = TIMEOUT_S,
        environment: Mapping[str, str] = MappingProxyType({}),
        cores: Collection[int] | None = None,
    ) -> None:
        self.name = runnable.name
        self._timeout_s = timeout_s
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            data = pickle.dumps(runnable, protocol=5)
        except Exception as error:
            raise WorkerError(f"cannot be sent to a child process: {one_line(error)}") from None
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sccg_bench.worker_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **environment, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the parent only, which then closes its children in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"bench {self.name}")
        self._reader.start()
        try:
            self._ask("load", data, threads, cores)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def open(self, size: tuple[int, int]) -> dict[str, Any]:
        """Load the model for slices of ``size`` (rows, columns), run it once, and return what it says of itself."""
        return cast("dict[str, Any]", self._ask("open", size))

    def run(self, image: FloatArray) -> FloatArray:
        """Run one slice (1, H, W) of the size that was opened."""
        return cast("FloatArray", self._ask("run", image))

    def outputs(self, images: Sequence[FloatArray]) -> list[FloatArray]:
        """Run slices of the size that was opened."""
        return [self.run(image) for image in images]

    def warm_up(self, plan: LatencyPlan) -> bool:
        """Run uncounted queries; whether the model is slow."""
        return bool(self._ask("warm_up", plan))

    def block(self, plan: LatencyPlan) -> list[float]:
        """One turn; its counted queries in ms, timed inside the child."""
        return cast("list[float]", self._ask("block", plan))

    def peak_rss_mib(self) -> float | None:
        """Peak resident memory of the child so far, in MiB."""
        return cast("float | None", self._ask("peak_rss_mib"))

    def device_p50_ms(self) -> float | None:
        """Median time of a query by the GPU's own events, in ms; None on a CPU."""
        return cast("float | None", self._ask("device_p50_ms"))

    def convert(self, series: Path, out: Path) -> int:
        """Convert a DICOM series into the folder ``out``; how many slices it has. Needs no :meth:`open`."""
        return int(self._ask("convert", series, out))

    def close(self) -> None:
        """End the child: politely, then by force. May be called twice."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(_CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._noise.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._process.kill()  # interrupted: nobody wants to wait for the query under way
        self.close()

    def _ask(self, name: str, *arguments: object) -> Any:
        if self._process.stdin is None or self._process.stdin.closed:
            raise WorkerError("its process has been closed")
        with contextlib.suppress(OSError):  # a broken pipe shows as an end of the answers, with a better reason
            send(cast("BinaryIO", self._process.stdin), (name, arguments))
        try:
            answer = self._answers.get(timeout=self._timeout_s)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"no answer to {name!r} within {self._timeout_s:g} s: its process was killed") from None
        if answer is None:
            self._answers.put(None)  # whoever asks again learns the same
            raise WorkerError(self._obituary())
        kind, value = answer
        if kind == "failed":
            raise WorkerError(*value)
        return value

    def _read(self) -> None:
        """Carry answers from the pipe to the queue until the child ends; None is the last."""
        stream = self._process.stdout
        try:
            while stream is not None:
                self._answers.put(receive(cast("BinaryIO", stream)))
        except Exception:
            self._answers.put(None)

    def _obituary(self) -> str:
        try:
            code = self._process.wait(_CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "its process stopped answering"
        self._noise.seek(0, os.SEEK_END)
        self._noise.seek(max(0, self._noise.tell() - 2000))
        lines = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        last = f" (last words: {lines[-1].strip()[:200]})" if lines else ""
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{hint}{last}"
        return f"its process ended with exit code {code}{last}"
