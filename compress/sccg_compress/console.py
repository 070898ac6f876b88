"""What people see: progress on stderr (only on a terminal), results on stdout, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sccg_runtime.files import write_text

if TYPE_CHECKING:
    from sccg_teacher_student.reporter import Reporter


def first_process() -> bool:
    """False in all but the first of the processes that ``torchrun`` started: those keep quiet."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: str) -> None:
    """Lines on stderr."""
    if not first_process():
        return
    sys.stderr.writelines(f"{line}\n" for line in lines)
    sys.stderr.flush()


def result(line: str) -> None:
    """One line on stdout."""
    if not first_process():
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_json(target: str | None, values: Any) -> None:
    """Write JSON to a file, to stdout for ``-``, or nowhere for None; what is not finite is written as null."""
    if target is None:
        return
    from sccg_bench.results import finite

    text = json.dumps(finite(values), indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(target), text)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """Progress bars for labels and training: loss, slices/s and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from sccg_teacher_student.loop import Progress as State
    from sccg_teacher_student.reporter import Reporter

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
        disable=not (sys.stderr.isatty() and first_process()),
        speed_estimate_period=3600.0,  # of the time left; a teacher's reports may lie minutes apart
    )
    labelling = bars.add_task("labels  ", total=1.0, detail="", visible=False)
    training = bars.add_task("training", total=1.0, detail="", visible=False)

    def labels(count: int, seconds: float, allowed: float | None, wanted: int | None) -> None:
        share = min(1.0, seconds / allowed) if allowed else min(1.0, count / wanted) if wanted else 0.0
        bars.update(labelling, completed=share, detail=f"{count} views", visible=True)

    def steps_done(state: State) -> None:
        pace = state.slices / state.seconds if state.seconds else 0.0
        detail = f"loss {state.losses['total']:.4f}  {pace:.1f} slices/s"
        bars.update(training, completed=state.share, detail=detail, visible=True)

    with bars:
        yield Reporter(say=say, labels=labels, training=steps_done)
