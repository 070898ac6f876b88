"""Silence of pydicom while patients' images are read and written."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings


class _Quiet:
    """Keeps pydicom's warnings and log records to itself: they quote values, and those may be a patient's.

    One for all conversions, which may overlap in several threads: the first begins it and the last ends it.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._undo = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            source = logging.getLogger("pydicom")
            self._undo.callback(setattr, source, "propagate", source.propagate)
            source.propagate = False
            self._undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", UserWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


QUIET_PYDICOM = _Quiet()
