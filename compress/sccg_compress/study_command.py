"""``sccg-compress study``: students of one teacher, trained and exported alike, and benched together, in turns.

In the folder, ``rows/`` holds one JSON of figures per finished student (bench's results, without weights, and of single
slices only how near they come to the teacher, and the engine to its network: to be kept), ``runs/`` the run folders
that they come from (may be deleted), and beside them lie ``study-DIRECTION.md``, ``.svg`` and ``.json``, made anew from
all rows of the direction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sccg_compress import runs
from sccg_compress.bench_command import run_models
from sccg_compress.candidates import STUDIED
from sccg_compress.console import result, say
from sccg_compress.distill_command import new_run, resume_run
from sccg_compress.export_command import export_model
from sccg_compress.models import STUDENT
from sccg_runtime.errors import InputError, RefusedError, SccgError, one_line
from sccg_runtime.files import sha256, write_bytes, write_text
from sccg_teacher_student.loss_weights import USUAL, USUAL_DECAY
from sccg_teacher_student.networks.spec import DEFAULT_STUDENT, PRESETS

if TYPE_CHECKING:
    from sccg_bench.results import Results
    from sccg_runtime.contract import Target
    from sccg_teacher_student.distill_config import DistillConfig

TEACHER = "teacher"
"""Stands among the students for the teacher's own INT8 engines, which need no training."""
VIEWS = 1024
"""Labelled views that all students of a seed learn from, if nobody says how many."""
ROWS = "rows"
CONDITIONS = "conditions"
PRESETS_THEN = "presets"
_UNSAID = ("views_recipe", "cases", "unpaired_cases")
"""Conditions that rows and runs of earlier versions do not name."""
_NEARNESS = {
    "drift": ("to_teacher_psnr_db", "to_teacher_psnr_head_db"),
    "engine_drift": ("engine_to_fp32_psnr_db", "engine_to_fp32_psnr_head_db"),
}
"""What is kept of single slices: those cut off at 100 dB mark their mean."""


def run_study(
    config: DistillConfig,
    students: Sequence[str] | None,
    seeds: Sequence[int],
    out: Path,
    *,
    targets: Sequence[str],
    against: str | None = None,
) -> None:
    """Make the rows that are missing, then the table and the plot.

    Parameters
    ----------
    config
        Of every distillation; ``student`` and ``seed`` are replaced. All learn from the same ``views``.
    students
        Names, or None for the teacher's engine and :data:`sccg_compress.candidates.STUDIED`.
    seeds
        Each student is trained once with each.
    out
        The study's folder.
    targets
        What INT8 engines are made for; they run on a CPU.
    against
        Row, called as in :func:`label` without direction and seed, that a table of gains holds all others against, or
        None for no such table.

    Raises
    ------
    InputError
        A name, row or target is not known, the folder holds rows or runs of another teacher, other data or other
        options, another study is at work in it, data or options cannot be used, or some students could not be trained:
        told after all others.
    """
    out.mkdir(parents=True, exist_ok=True)
    with runs.alone(out):
        _run_study(config, students, seeds, out, targets, against)


def _run_study(
    config: DistillConfig,
    students: Sequence[str] | None,
    seeds: Sequence[int],
    out: Path,
    targets: Sequence[str],
    against: str | None,
) -> None:
    from sccg_bench.report.gains import check_row
    from sccg_bench.results import write_results
    from sccg_export.targets import int8_cpu_target
    from sccg_teacher_student.networks.spec import student_spec

    wanted = [int8_cpu_target(target) for target in dict.fromkeys(targets)]
    conditions = _conditions(config)
    _check_rows(config, conditions, out)
    _check_begun({"teacher": sha256(Path(config.teacher)), **conditions}, out / runs.RUNS / f"{config.direction}.json")
    names = [TEACHER, *STUDIED] if students is None else students
    points = [
        replace(config, student=name if name == TEACHER else student_spec(name).name, seed=seed)
        for seed, name in product(seeds, names)
        if name != TEACHER or seed == seeds[0]
    ]
    if against is not None:  # told before hours of training
        check_row(against, _row_names(config.direction, points, out))
    for point in points:
        _check_run(point, out / runs.RUNS / label(point))
    models: dict[str, list[Path]] = {}
    refused: dict[str, list[str]] = {}
    failed: list[str] = []
    for number, point in enumerate(points, start=1):
        name = label(point)
        row = out / ROWS / f"{name}.json"
        if row.is_file():
            say(f"[{number}/{len(points)}] {row} is there already{_without(row, wanted)}")
            continue
        say(f"[{number}/{len(points)}] {name}")
        try:
            if point.student != TEACHER:
                _label(point, _labels_folder(point, out))
            models[name], refused[name] = _made(point, out / runs.RUNS / name, wanted)
        except (SccgError, RuntimeError, MemoryError) as error:  # hours of others are not lost for one
            say(f"{name}: no row, to be tried again: {one_line(error)}")
            failed.append(f"{name}: {one_line(error)}")
    if models:
        found = run_models(
            list(chain(*models.values())),
            teacher=Path(config.teacher),
            data=Path(config.data),
            intensity=None if config.intensity is None else Path(config.intensity),
            direction=config.direction,
            device="cpu",
            report=out / "report",
        ).results
        for name in models:
            figures = _of_point(found, name, refused[name], alone=len(models) == 1)
            told = {CONDITIONS: conditions, PRESETS_THEN: dict(PRESETS)}
            figures = replace(figures, provenance={**figures.provenance, **told})
            asked = {"teacher", "teacher engine" if name == f"{config.direction}-{TEACHER}" else "model"}
            lost = [one for one in figures.rows if one.role in asked and one.status in ("failed", "not measured")]
            if lost:
                failed.append(f"{name}: {lost[0].name} {lost[0].status}: {lost[0].note}")
            else:
                write_results(out / ROWS / f"{name}.json", figures)
    if any(_rows(config.direction, out)):
        _summarise(config.direction, out, None if failed else against)
    if failed:
        raise InputError(f"no row of {'; '.join(failed)}")


def presets_then(merged: Results) -> Mapping[str, str]:
    """Preset -> student as it was when all rows were measured, or today's where they do not agree or do not say."""
    return dict(merged.provenance.get(PRESETS_THEN) or PRESETS)


def label(point: DistillConfig) -> str:
    """Name of a point's row and run folder, such as ``mr2ct-s2d-48x4-8min-seed0``; it says what is not as usual."""
    if point.student == TEACHER:
        return f"{point.direction}-{TEACHER}"
    amount = f"{point.steps}steps" if point.minutes is None else f"{point.minutes:g}min"
    usual = asdict(USUAL)
    changed = [f"{name}{weight:g}" for name, weight in asdict(point.losses).items() if weight != usual[name]]
    if point.weight_decay != USUAL_DECAY:
        changed.append(f"decay{point.weight_decay:g}")
    return "-".join((point.direction, point.student, amount, *_views(point), *changed, f"seed{point.seed}"))


def _views(point: DistillConfig) -> list[str]:
    return [] if point.views == VIEWS else [f"{point.views}views"]


def _labels_folder(point: DistillConfig, out: Path) -> Path:
    return out / runs.RUNS / "-".join((point.direction, "labels", *_views(point), f"seed{point.seed}"))


def _made(point: DistillConfig, folder: Path, targets: Sequence[Target]) -> tuple[list[Path], list[str]]:
    """Train where there is something to train and export to INT8: what to bench, and what the gate refused."""
    bundles = {target: folder / f"{point.student}-{target}-int8.sccg" for target in targets}
    if point.student == TEACHER:
        model = Path(point.teacher)
    else:
        _train(point, folder)
        made = _labelled(folder)
        if made < (point.views or 0):
            raise InputError(
                f"{folder} learned from {made} instead of {point.views} views, made in its own minutes: those made "
                f"before are gone or of another machine; delete it and {_labels_folder(point, folder.parent.parent)}"
            )
        model = folder
    refused = [
        text
        for target, bundle in bundles.items()
        if not bundle.is_file() and (text := _export(model, point, target, bundle)) is not None
    ]
    own = sorted(folder.glob("[!.]*.sccg")) if point.student == TEACHER else []  # those of an earlier study, too
    return own or [model], refused


def _without(row: Path, targets: Sequence[Target]) -> str:
    """What of the targets a row has no engine of, in words."""
    from sccg_bench.results import read_results
    from sccg_export.runnables import ENGINE_NAMES

    kept = read_results(row)
    role = "teacher engine" if row.stem.endswith(f"-{TEACHER}") else "model"
    there = {one.engine for one in kept.rows if one.role == role and one.precision == "int8"}
    lacking = [
        target
        for target in targets
        if ENGINE_NAMES[target] not in there and not any(_refusal(target) in text for text in kept.warnings)
    ]
    return f", without {' and '.join(lacking)}: delete it and name every --target to have all" if lacking else ""


def _refusal(target: Target) -> str:
    return f"no INT8 engine for {target}: "


def _label(point: DistillConfig, folder: Path) -> None:
    """Make the labels that all students of a seed learn from; in no student's minutes."""
    usual = replace(point, student=DEFAULT_STUDENT, losses=USUAL, weight_decay=USUAL_DECAY, steps=1, minutes=None)
    _check_run(usual, folder)
    _train(usual, folder)


def _labelled(folder: Path) -> int:
    return int(json.loads((folder / "labels.json").read_text(encoding="utf-8"))["views"])


def _check_run(point: DistillConfig, folder: Path) -> None:
    """InputError if the folder's run was asked for in another way: nothing of it belongs to this study."""
    path = folder / "config.json"
    if path.is_file() and type(point).from_json(path.read_text(encoding="utf-8", errors="replace")) != point:
        raise InputError(f"{path} is of another teacher, other data or other options: choose another --out")


def _train(point: DistillConfig, folder: Path) -> None:
    """Train from where an earlier run in ``folder`` ended."""
    if (folder / STUDENT).is_file():
        return
    if (folder / "config.json").is_file():
        resume_run(folder)
    else:
        new_run(point, folder)


def _of_point(found: Results, name: str, refused: Sequence[str], *, alone: bool) -> Results:
    """What all points share and the rows of one of them; of single slices only how near they come to others."""
    mine = f" ({name})"
    rows = tuple(
        replace(row, name=row.name.removesuffix(mine), per_slice=tuple(map(_nearness, row.per_slice)))
        for row in found.rows
        if alone or row.role != "model" or row.name.endswith(mine)
    )
    return replace(found, rows=rows, warnings=(*found.warnings, *refused))


def _nearness(part: Mapping[str, Any]) -> dict[str, Any]:
    near = {
        group: {name: figures.get(name) for name in names}
        for group, names in _NEARNESS.items()
        if (figures := part.get(group))
    }
    return {"case": part["case"], "slice": part["slice"]} | near


def _export(model: Path, point: DistillConfig, target: Target, out: Path) -> str | None:
    """Make the INT8 bundle; what the gate said if it refused, for the row's warnings."""
    from sccg_export.gate import DriftBudget

    try:
        export_model(
            model,
            target=target,
            precision="int8",
            data=Path(point.data),
            intensity=None if point.intensity is None else Path(point.intensity),
            direction=point.direction,
            teacher=Path(point.teacher),
            out=out,
            seed=point.seed,
            budget=DriftBudget(),
        )
    except RefusedError as error:
        told = f"{_refusal(target)}{error}"
        say(told)
        return told
    return None


def _conditions(config: DistillConfig) -> dict[str, Any]:
    """What all rows of a study share beside the teacher; folders by name, as paths differ between machines."""
    from sccg_runtime.direction import modalities
    from sccg_teacher_student.data.source import open_data, open_unpaired
    from sccg_teacher_student.views import RECIPE

    files = {"intensity": config.intensity, "reverse_teacher": config.reverse_teacher}
    hashes = {name: None if path is None else sha256(Path(path)) for name, path in files.items()}
    settings = None if config.intensity is None else Path(config.intensity)
    source = open_data(Path(config.data), settings=settings)
    given, made = modalities(config.direction)
    modality = given if config.reverse_teacher is None else made
    unpaired = [open_unpaired(Path(path), modality, settings, source.settings) for path in config.unpaired]
    return {
        "data": source.path.name,
        "cases": {split: list(cases) for split, cases in (source.splits or {"all": source.cases}).items()},
        "unpaired": [folder.path.name for folder in unpaired],
        "unpaired_cases": [list(folder.cases) for folder in unpaired],
        "views_recipe": RECIPE,
        **hashes,
    }


def _check_rows(config: DistillConfig, conditions: Mapping[str, Any], out: Path) -> None:
    """InputError if rows are of another teacher or other conditions (those of earlier versions do not say which)."""
    from sccg_bench.results import read_results

    wanted = sha256(Path(config.teacher))
    for path in _rows(config.direction, out):
        provenance = read_results(path).provenance
        if wanted not in provenance.get("hashes", {}).values():
            raise InputError(f"{path} is of another teacher: choose another --out")
        if other := _others(provenance.get(CONDITIONS, conditions), conditions):
            raise InputError(f"{path} is of other data or options ({', '.join(other)}): choose another --out")


def _check_begun(conditions: Mapping[str, Any], path: Path) -> None:
    """InputError if the runs beside ``path`` were begun under other conditions; kept there from the first time on.

    Paths and names stay the same where a teacher is trained again.
    """
    if path.is_file():
        try:
            kept = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            kept = None
        if not isinstance(kept, dict):
            raise InputError(f"{path} is damaged: choose another --out")
        if other := _others(kept, conditions):
            raise InputError(f"{path.parent} was begun with another {', '.join(other)}: choose another --out")
        if kept == conditions:
            return
    write_text(path, json.dumps(conditions, indent=2) + "\n")


def _others(kept: Any, conditions: Mapping[str, Any]) -> list[str]:
    """Names of conditions that differ; those that earlier versions do not name may be missing."""
    if not isinstance(kept, dict):
        return list(conditions)
    unsaid = {name: conditions.get(name) for name in _UNSAID}
    return [name for name, value in conditions.items() if (unsaid | kept).get(name) != value]


def _row_names(direction: str, points: Sequence[DistillConfig], out: Path) -> set[str]:
    """What rows that there are or will be are called, without direction and seed."""
    names = {*(path.stem for path in _rows(direction, out)), *map(label, points)}
    return {name.removeprefix(f"{direction}-").rpartition("-seed")[0] for name in names} - {""}


def _rows(direction: str, out: Path) -> list[Path]:
    """The teacher's own row first: its engine may stand in rows of earlier runs, too, and the first one counts."""
    own = f"{direction}-{TEACHER}"
    return sorted((out / ROWS).glob(f"{direction}-*.json"), key=lambda path: (path.stem != own, path.stem))


def _summarise(direction: str, out: Path, against: str | None) -> None:
    from sccg_bench.merging import merge
    from sccg_bench.report.aims import aims_table
    from sccg_bench.report.charts import drift_figure, svg_bytes
    from sccg_bench.report.gains import gains_table
    from sccg_bench.report.markdown import write_markdown
    from sccg_bench.report.study import engines, students_by_patient, study_table
    from sccg_bench.results import read_results, write_results

    rows = _rows(direction, out)
    merged = merge({path.stem.removeprefix(f"{direction}-"): read_results(path) for path in rows})
    name = f"study-{direction}"
    write_results(out / f"{name}.json", merged)
    gains = [] if against is None else [gains_table(merged, against)]
    several = len(merged.provenance.get("cases") or ()) > 1
    patients = [students_by_patient(merged)] if several else []
    aims = aims_table(merged, presets_then(merged))
    tables = [study_table(merged), *([aims] if aims.lines else []), *patients, *gains]
    write_markdown(out / f"{name}.md", merged, tables)
    figure = drift_figure(engines(merged), teacher=True)
    if figure is not None:
        write_bytes(out / f"{name}.svg", svg_bytes(figure))
    result(f"{len(rows)} rows: {out / f'{name}.md'}")
