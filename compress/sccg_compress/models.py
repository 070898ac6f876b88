"""A MODEL on the command line: a bundle, a run folder, or a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sccg_compress import runs
from sccg_compress.console import say
from sccg_runtime.errors import InputError

STUDENT = "student.safetensors"


@dataclass(frozen=True, slots=True)
class Model:
    """What was found behind a MODEL.

    Attributes
    ----------
    run
        The run folder that it belongs to, or None.
    checkpoint
        FP32 network, or None (a bundle alone).
    bundles
        Engines of it.
    """

    run: Path | None
    checkpoint: Path | None
    bundles: tuple[Path, ...]

    def run_teacher(self) -> Path | None:
        """The teacher that the run was distilled from, where its file is still there; says so where it is not.

        Raises
        ------
        InputError
            The run's ``config.json`` is damaged.
        """
        config = None if self.run is None else self.run / "config.json"
        if config is None or not config.is_file():
            return None
        try:
            teacher = json.loads(config.read_text(encoding="utf-8"))["teacher"]
        except (ValueError, KeyError, TypeError, RecursionError):
            if not (config.parent / STUDENT).is_file():
                return None  # somebody else's file beside a checkpoint
            raise InputError(f"{config} is damaged: it names no teacher") from None
        if not Path(str(teacher)).is_file():
            say(f"the teacher of {self.run} is not at {teacher} any more: no drift against it (say --teacher FILE)")
            return None
        return Path(teacher)


def find_model(path: Path | None) -> Model:
    """Resolve a MODEL; None is the newest run.

    Raises
    ------
    InputError
        Nothing usable is there.
    """
    where = runs.latest_run() if path is None else path
    if where.is_dir():
        bundles = (path for path in where.glob("*.sccg") if not path.name.startswith("."))  # those are being written
        return Model(where, _checkpoint(where), tuple(sorted(bundles)))
    if not where.is_file():
        raise InputError(f"no model at {where}: give a .sccg bundle, a run folder or a checkpoint")
    run = where.parent if (where.parent / "config.json").is_file() else None
    if where.suffix == ".sccg":
        student = where.parent / STUDENT
        return Model(run, student if run is not None and student.is_file() else None, (where,))
    return Model(run, where, ())


def is_own(run: Path, checkpoint: Path) -> bool:
    """Whether naming the run alone would name ``checkpoint``."""
    try:
        return _checkpoint(run).samefile(checkpoint)
    except InputError:  # somebody else's folder
        return False


def _checkpoint(run: Path) -> Path:
    """What a run left: the student, the best teacher, or the last state of a run that has not ended."""
    if (run / STUDENT).is_file():
        return run / STUDENT
    teachers = sorted(run.glob("teacher_*.safetensors"))
    if len(teachers) > 1:
        raise InputError(f"{run} holds {len(teachers)} teachers: name {' or '.join(map(str, teachers))}")
    checkpoint = teachers[0] if teachers else run / "last.pt"
    if not checkpoint.is_file():
        raise InputError(f"{run} is not a run folder: it has neither {STUDENT} nor last.pt")
    return checkpoint
