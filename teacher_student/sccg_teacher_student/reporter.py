"""How a run tells what it is at."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sccg_teacher_student.loop import Progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Called while a run goes on; the command line draws progress bars from it.

    Attributes
    ----------
    say
        One line of text.
    labels
        (views so far, seconds spent, seconds allowed or None, views wanted or None).
    training
        State after some steps.
    """

    say: Callable[[str], None] = _log.info
    labels: Callable[[int, float, float | None, int | None], None] = lambda *_: None
    training: Callable[[Progress], None] = lambda _: None
