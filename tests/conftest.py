"""For all packages but the runtime."""

from __future__ import annotations

import signal
import weakref
from typing import Any

import pytest

# A parent that ignores Ctrl-C hands that down (nohup, background jobs); the tests that send it need the default back.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Living:
    """Counts how many of the arrays that it watches are in memory at once."""

    def __init__(self) -> None:
        self.seen = self.now = self.most = 0

    def watch(self, array: Any) -> Any:
        self.seen, self.now = self.seen + 1, self.now + 1
        self.most = max(self.most, self.now)
        weakref.finalize(array, self._end)
        return array

    def _end(self) -> None:
        self.now -= 1


@pytest.fixture
def living() -> Living:
    return Living()
