"""Stored values of one image. Compressed ones are decoded in another process, which may die or hang.

Decoders of JPEG, JPEG-LS, JPEG 2000 and RLE are native code and meet whatever damage a file holds. A worker that ends
or is silent for 5 s costs its image, not this process. Uncompressed pixels are taken as they are, here.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sccg_runtime.dicom.worker import LENGTH_BYTES, send
from sccg_runtime.errors import SeriesError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SILENCE_S = 5.0
START_S = 60.0
MAX_PIXELS = 64 * 1024**2
DECODE_WORKER = "--decode-worker"  # what the standalone program, which has no -c, starts itself with
COMMAND = (  # -P: nothing is imported from the folder that the caller stands in
    (DECODE_WORKER,)
    if getattr(sys, "frozen", False)
    else ("-P", "-c", "from sccg_runtime.dicom.worker import main; main()")
)
_ATTRIBUTES = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


class _DeadError(Exception):
    """The worker ended, or was ended because it was silent."""


class _Worker:
    """A running :mod:`sccg_runtime.dicom.worker`; for one thread at a time."""

    def __init__(self) -> None:
        self._silent = False
        if not sys.executable:
            raise OSError(errno.ENOENT, "this Python does not know its own program")
        self._process = subprocess.Popen(
            [sys.executable, *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            self._receive(START_S, 1024)
        except _DeadError as error:  # before it saw an image: no fault of the image's
            self.close()
            raise OSError(errno.ECHILD, f"{error} at its start") from None
        except BaseException:
            self.close()
            raise

    def decode(self, request: bytes, most: int) -> tuple[dict[str, Any], bytes]:
        """The answer's line and pixels, of at most ``most`` bytes.

        Raises
        ------
        _DeadError
            The worker is gone; the message says how.
        """
        assert self._process.stdin is not None  # noqa: S101
        with self._clock(SILENCE_S), contextlib.suppress(OSError):  # a worker that is gone: reading will tell
            send(self._process.stdin, request)  # type: ignore[arg-type]
        line, _, pixels = self._receive(SILENCE_S, most + 1024).partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _DeadError("the decoder's answer makes no sense")
        return answer, pixels

    def _receive(self, limit_s: float, most: int) -> bytes:
        """One message, in parts: each must come within ``limit_s``."""
        assert self._process.stdout is not None  # noqa: S101
        content, wanted, head = b"", LENGTH_BYTES, True
        parts: list[bytes] = []
        while wanted:
            with self._clock(limit_s):
                part = self._process.stdout.read1(min(wanted, 1024**2))  # type: ignore[attr-defined]
            if not part:
                text = f"the decoder gave no answer for {limit_s:g} s" if self._silent else "the decoder crashed"
                raise _DeadError(text)
            parts.append(part)
            wanted -= len(part)
            if wanted == 0:
                content, parts = b"".join(parts), []
                if head:
                    wanted, head = int.from_bytes(content, "little"), False
                    if wanted > most:
                        raise _DeadError("the decoder's answer is too long")
        return content

    @contextlib.contextmanager
    def _clock(self, limit_s: float) -> Iterator[None]:
        timer = threading.Timer(limit_s, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        self._silent = True
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Worker] = []


@contextlib.contextmanager
def _borrowed() -> Iterator[_Worker]:
    """A worker that is idle, or a new one; one that failed is not used again."""
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    try:
        yield worker
    except BaseException:
        worker.close()
        raise
    _idle.append(worker)


def close_workers() -> None:
    """End all workers that are idle."""
    while _idle:
        _idle.pop().close()


atexit.register(close_workers)


def decode(name: str, dataset: Dataset) -> npt.NDArray[Any]:
    """Stored values (rows, columns) of an image of one frame, unused bits included, in this machine's byte order.

    Parameters
    ----------
    name
        For messages.
    dataset
        Holds PixelData (7FE0,0010), attributes of the image pixel module and the transfer syntax.

    Raises
    ------
    SeriesError
        The pixels are damaged or cut off, no decoder is here, or decoding crashed or hung.
    """
    from pydicom.pixels.utils import pixel_array

    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    kind = getattr(syntax, "name", "unknown transfer syntax")
    try:
        count = int(dataset.Rows) * int(dataset.Columns)
        if not 0 < count <= MAX_PIXELS:
            raise SeriesError(
                f"{name} says {dataset.Rows}x{dataset.Columns} pixels, more than any slice has: replace or remove it"
            )
        if not syntax.is_compressed or syntax.is_deflated:  # type: ignore[union-attr]
            stored = pixel_array(dataset, correct_unused_bits=False)  # unlike the property, keeps no copy in it
            return stored.astype(stored.dtype.newbyteorder("="), copy=False)  # big endian in the file
        request = _request(dataset)
    except (SeriesError, MemoryError):
        raise
    except Exception:  # pydicom reads attributes when they are first used, and raises many kinds
        raise _damaged(name, kind) from None
    try:
        with _borrowed() as worker:
            answer, pixels = worker.decode(request, count * int(dataset.BitsAllocated) // 8)
    except _DeadError as error:
        raise SeriesError(f"{name} cannot be decoded: {error} ({kind}): replace or remove the file") from None
    except OSError as error:
        raise SeriesError(
            f"{name} cannot be decoded: no process for it ({error.strerror}): end other programs and try again"
        ) from None
    if answer.get("no_decoder"):
        advice = "replace it if it is damaged, else convert it to Explicit VR Little Endian first"
        raise SeriesError(f"{name} cannot be decoded: no decoder for {kind} works on it; {advice}")
    try:
        if answer["shape"] != [dataset.Rows, dataset.Columns] or answer["dtype"] not in ("|u1", "|i1", "<u2", "<i2"):
            raise ValueError("another image than the header says")
        return np.frombuffer(pixels, answer["dtype"]).reshape(answer["shape"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(name, kind) from None


def _damaged(name: str, kind: str) -> SeriesError:
    return SeriesError(
        f"{name} cannot be decoded: the pixels are cut off or damaged ({kind}): replace or remove the file"
    )


def _request(dataset: Dataset) -> bytes:
    """A DICOM file of the pixels and of what describes them."""
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import SecondaryCaptureImageStorage

    bare = Dataset()
    for keyword in _ATTRIBUTES:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    bare["PixelData"] = dataset["PixelData"]
    bare.SOPClassUID, bare.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    stream = io.BytesIO()
    dcmwrite(stream, bare, enforce_file_format=True)
    return stream.getvalue()
