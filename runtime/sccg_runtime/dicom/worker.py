"""The process that decodes compressed pixels: a native decoder that crashes on a damaged image takes only this down.

It reads requests from stdin and answers on stdout until stdin ends, and is started by
:mod:`sccg_runtime.dicom.decoder` only. Every message is its length as 8 bytes, little endian, then its content. A
request is a DICOM file with pixel attributes and nothing of the patient. An answer is one line of JSON, then, where the
line says ``shape`` and ``dtype``, the pixels; an answer cannot hold code (no pickle), because a damaged image may have
overwritten this process's memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from typing import BinaryIO

LENGTH_BYTES = 8
MAX_MEMORY_BYTES = 4 * 1024**3
MAX_DECODING_S = 60  # for a worker whose parent was killed while it hung


def main() -> None:
    """Answer requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a decoder prints must not get between the answers
    _limit_memory()
    import pydicom.pixels  # noqa: F401  (the decoders are loaded before the clock of the first image runs)

    send(answers, b"{}\n")
    while (request := receive(requests)) is not None:
        _alarm(MAX_DECODING_S)
        send(answers, _answer(request))
        _alarm(0)


def _answer(request: bytes) -> bytes:
    import logging
    import warnings

    import numpy as np
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    logging.disable()
    warnings.simplefilter("ignore")
    try:
        array = np.ascontiguousarray(pixel_array(dcmread(io.BytesIO(request)), correct_unused_bits=False))
    except BaseException as error:  # a decoder in Rust that panics raises no Exception
        missing = isinstance(error, (NotImplementedError, RuntimeError)) and "plugin" in str(error)
        return json.dumps({"error": type(error).__name__, "no_decoder": missing}).encode() + b"\n"
    line = json.dumps({"shape": array.shape, "dtype": array.dtype.str}).encode()
    return line + b"\n" + array.tobytes()


def _alarm(seconds: int) -> None:
    if sys.platform != "win32":
        signal.alarm(seconds)


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(most, MAX_MEMORY_BYTES)
        with contextlib.suppress(ValueError, OSError):  # macOS limits no address space
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def send(stream: BinaryIO, content: bytes) -> None:
    """Write one message."""
    stream.write(len(content).to_bytes(LENGTH_BYTES, "little"))
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """Read one message; None where the stream has ended."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "little")
    content = stream.read(length)
    return content if len(content) == length else None
