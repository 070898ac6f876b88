"""``sccg-compress distill``: from a teacher to a student, in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sccg_compress import runs
from sccg_compress.console import reporting, result, say, write_json
from sccg_compress.sources import choose_data
from sccg_runtime.errors import InputError
from sccg_runtime.files import write_bytes

if TYPE_CHECKING:
    from sccg_runtime.direction import Direction
    from sccg_teacher_student.distill import DistillResult
    from sccg_teacher_student.distill_config import DistillConfig

SHEET_SLICES = 5


def new_run(config: DistillConfig, out: Path | None, *, json_out: str | None = None) -> Path:
    """Distil into a new folder; gives it."""
    from sccg_teacher_student import parallel
    from sccg_teacher_student.precision import choose_device

    with (
        parallel.joined(choose_device(config.device)),
        runs.begun(out, config.student, config.direction, ("config.json", config.to_json())) as folder,
    ):
        return _run(config, folder, resume=False, json_out=json_out)


def resume_run(folder: Path, *, json_out: str | None = None) -> Path:
    """Go on with an interrupted run, from its own ``config.json``.

    Raises
    ------
    InputError
        The folder is not an interrupted run.
    """
    from sccg_teacher_student import parallel
    from sccg_teacher_student.distill_config import DistillConfig
    from sccg_teacher_student.precision import choose_device

    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no config.json")
    config = DistillConfig.from_json(path.read_text(encoding="utf-8", errors="replace"))
    with parallel.joined(choose_device(config.device)):
        if not (folder / "labels.json").is_file():
            say(f"{folder} was interrupted before its training began; it starts again with the labels made so far")
            return _run(config, folder, resume=False, json_out=json_out)
        return _run(config, folder, resume=(folder / "last.pt").is_file(), json_out=json_out)


def _run(config: DistillConfig, folder: Path, *, resume: bool, json_out: str | None) -> Path:
    from sccg_teacher_student.distill import distill

    intensity = Path(config.intensity) if config.intensity else None
    source = choose_data(Path(config.data), None, intensity)
    say(f"run folder: {folder}")
    with runs.resumable("distill", folder), reporting() as reporter:
        made = distill(config, source, folder, runs.root_of(folder) / runs.CACHE, reporter, resume=resume)
        if made is None:  # not the first of several processes
            return folder
        write_bytes(folder / "sheet.png", _sheet(made, config.direction))
        runs.mark_latest(folder)
    psnr = _to_teacher(made, config.direction)
    facts = {**made.facts, "to_teacher_psnr_db": psnr, "run": str(folder)}
    write_json(json_out, facts)
    if json_out != "-":
        steps = made.facts["steps"]
        result(f"{made.student.path}: {made.facts['student']}, {steps} steps, {made.facts['views']} labelled views")
        kind = "training" if made.facts["validated_on_training_cases"] else "validation"
        result(f"to the teacher on {len(made.pairs)} {kind} slices: {psnr:.2f} dB; pictures: {folder / 'sheet.png'}")
    return folder


def _to_teacher(made: DistillResult, direction: Direction) -> float:
    """``to_teacher_psnr_db`` in the mean over patients."""
    from sccg_bench.quality import quality

    scores = quality(made.pairs, made.student_outputs, made.teacher_outputs, None, direction)
    value = scores.summary.drift["to_teacher_psnr_db"]
    if value is None:
        raise InputError("no validation slice could be compared with the teacher")
    return value


def _sheet(made: DistillResult, direction: Direction) -> bytes:
    """Input, teacher, student and difference of a few validation slices, one strip under another."""
    from sccg_bench.report.sheets import stacked_png, strip_png

    count = min(SHEET_SLICES, len(made.pairs))
    strips = []
    for number in range(count):
        index = number * (len(made.pairs) - 1) // max(1, count - 1)
        pair, teacher, student = made.pairs[index], made.teacher_outputs[index], made.student_outputs[index]
        panels = [(pair.label, pair.given(direction)), ("teacher", teacher), (made.student.spec.name, student)]
        strips.append(strip_png(panels, student, teacher, "teacher"))
    return stacked_png(strips)
