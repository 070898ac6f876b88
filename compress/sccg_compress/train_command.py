"""``sccg-compress train``: the paper's scCycleGAN teacher, in a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress import runs
from sccg_compress.console import reporting, result, say, write_json
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_teacher_student.train_config import TrainConfig


def new_training(config: TrainConfig, out: Path | None, *, json_out: str | None = None) -> Path:
    """Train into a new folder; gives it."""
    from sccg_teacher_student import parallel
    from sccg_teacher_student.precision import choose_device
    from sccg_teacher_student.train_config import CONFIG

    with (
        parallel.joined(choose_device(config.device)),
        runs.begun(out, "teacher", config.direction, (CONFIG, config.to_json())) as folder,
    ):
        return _run(config, folder, resume=False, json_out=json_out)


def resume_training(folder: Path, *, json_out: str | None = None) -> Path:
    """Go on with an interrupted run, from its own ``train.json``.

    Raises
    ------
    InputError
        The folder is not an interrupted training of a teacher.
    """
    from sccg_teacher_student import parallel
    from sccg_teacher_student.precision import choose_device
    from sccg_teacher_student.train_config import CONFIG, TrainConfig

    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not a teacher's run folder: it has no {CONFIG}")
    config = TrainConfig.from_json(path.read_text(encoding="utf-8", errors="replace"))
    with parallel.joined(choose_device(config.device)):
        return _run(config, folder, resume=(folder / "last.pt").is_file(), json_out=json_out)


def _run(config: TrainConfig, folder: Path, *, resume: bool, json_out: str | None) -> Path:
    from sccg_teacher_student.data.source import open_data
    from sccg_teacher_student.train import train as train_teacher

    source = open_data(Path(config.data), settings=Path(config.intensity) if config.intensity else None)
    say(f"run folder: {folder}")
    with runs.resumable("train", folder), reporting() as reporter:
        made = train_teacher(config, source, folder, reporter, resume=resume)
    if made is None:  # not the first of several processes
        return folder
    write_json(json_out, {**made.facts, "run": str(folder)})
    if json_out != "-":
        kind = "training" if made.facts["validated_on_training_cases"] else "validation"
        for direction, path in made.teachers.items():
            best = made.facts["teachers"][direction]["best"]
            result(
                f"{path}: {made.facts['generator']}, best at step {best['step']} of {made.facts['steps']}: "
                f"{best['psnr_db']:.2f} dB, SSIM {best['ssim']:.4f} on {made.facts['validation_slices']} {kind} slices"
            )
            result(f"go on with: sccg-compress distill --teacher {shlex.quote(str(path))}")
    return folder
