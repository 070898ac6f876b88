"""Which data, direction and teacher a command works with, and saying so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress import runs
from sccg_compress.console import say
from sccg_runtime.direction import Direction, parse_direction
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_runtime.contract import Contract
    from sccg_teacher_student.checkpoint import Checkpoint
    from sccg_teacher_student.data.source import DataSource
    from sccg_teacher_student.record import TrainingRecord


def choose_direction(asked: str | None, checkpoint: Checkpoint) -> Direction:
    """From the flag or the checkpoint's record; else, and then it says so, from the file's name, or ``mr2ct``.

    Raises
    ------
    InputError
        The flag contradicts the record.
    """
    record = checkpoint.record
    if record is not None:
        if asked is not None and parse_direction(asked) != record.direction:
            raise InputError(f"--direction {asked}: {checkpoint.path.name} was trained for {record.direction}")
        return record.direction
    if asked is not None:
        return parse_direction(asked)
    if checkpoint.direction is not None:
        say(f"direction: {checkpoint.direction}, from the name of {checkpoint.path.name}")
        return checkpoint.direction
    say("direction: mr2ct, assumed; the file does not say it (use --direction)")
    return "mr2ct"


def choose_data(asked: Path | None, record: TrainingRecord | None, intensity: Path | None) -> DataSource:
    """The folder that was asked for, else the recorded one, else the phantom (made if it is not there).

    Slices have the size that the network of ``record`` sees.
    """
    source = _opened(asked, None if record is None else record.data, intensity)
    return source if record is None else record.sees(source)


def _opened(asked: Path | None, recorded: str | None, intensity: Path | None) -> DataSource:
    from sccg_teacher_student.data.phantom_dicom import write_phantom
    from sccg_teacher_student.data.source import open_data

    if asked is not None:
        return open_data(asked, settings=intensity)
    if recorded is not None and Path(recorded).is_dir():
        say(f"data: {recorded}, as recorded")
        return open_data(Path(recorded), settings=intensity)
    folder = runs.RUNS / runs.PHANTOM
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("several processes need --data DIR; `sccg-compress phantom --out DIR` makes one")
    gone = f"{recorded} is not there any more; " if recorded else ""
    say(f"data: {gone}the built-in phantom in {folder} is used: simulated, not for judging a real model (use --data)")
    if not folder.is_dir():
        write_phantom(folder, patients=12, slices=12, size=256)
    return open_data(folder, settings=intensity)


def other_intensities(name: str, learned: TrainingRecord | Contract, source: DataSource) -> list[str]:
    """Where grey values of the data mean something else than in the data that a network learned from, in words."""
    return [
        f"{name} learned from {part.modality} of another intensity than {source.path.name} has: judge with care"
        for part in (learned.input_intensity, learned.output_intensity)
        if source.settings.intensity(part.modality) != part
    ]


def other_teacher(name: str, learned: TrainingRecord | Contract, teacher: Checkpoint) -> list[str]:
    """That a network learned from another teacher than the one at hand, in words, if it did."""
    if learned.teacher_sha256 in (None, teacher.sha256):
        return []
    return [f"{name} learned from another teacher; drift is to {teacher.path.name}"]


def record_of(checkpoint: Checkpoint, direction: Direction, source: DataSource) -> TrainingRecord:
    """The checkpoint's own record; for one without (a CycleGAN teacher), what the data says."""
    from sccg_teacher_student.data.splits import training_cases
    from sccg_teacher_student.record import TrainingRecord

    if checkpoint.record is not None:
        return checkpoint.record
    train, val = training_cases(source, seed=0)
    images = (pair.given(direction) for pair in source.pairs(train))
    say(f"{checkpoint.path.name} carries no record: intensities, size and spacing are taken from {source.path}")
    return TrainingRecord.of(source, direction, images, (train, val))
