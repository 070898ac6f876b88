"""What each part of the teacher's objective does: trainings from the same start, and the tables made of them.

``python -m sccg_compress.pages.ablation --data DIR --unpaired DIR`` trains what has no results yet, and draws what the
teachers make of the phantom.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from sccg_compress.pages.generated import figures_of
from sccg_compress.pages.phantom_sheets import drawn
from sccg_compress.train_command import new_training, resume_training
from sccg_runtime.direction import Direction
from sccg_runtime.errors import SccgError
from sccg_runtime.files import write_bytes, write_text

RESULTS = Path("results/teacher")
SHEET = Path("docs/teacher-ablation.png")
TO_REAL = ("psnr_db", "ssim", "mae_u8")
FIGURES = (*TO_REAL, "hf_ratio")
_PRIVATE = ("data", "unpaired_mr", "unpaired_ct", "intensity")

STEPS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "1-l1": ("L1 only", {"adversarial": 0, "structure": 0, "uniform_pixels": True}),
    "2-adversarial": ("+ adversarial", {"structure": 0, "uniform_pixels": True}),
    "3-p-pix": ("+ P_pix", {"structure": 0}),
    "4-structure": ("+ structural consistency", {}),
    "5-cycle": ("+ cycle and unpaired MR", {}),
}
"""File name -> what the row is called, and the weights that differ from the full objective."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of pairs.")],
    unpaired: Annotated[Path, typer.Option(help="Folder of unpaired MR, for the last step.")],
    minutes: Annotated[float, typer.Option(help="Of each training.")] = 10.0,
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs/ablation"),
    results: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS,
    sheet: Annotated[Path, typer.Option(help="Where the pictures go.")] = SHEET,
) -> None:
    """Train mr2ct with the preset cpu and the paper's weights once per row, and keep the figures."""
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.teaching import HybridWeights
    from sccg_teacher_student.train_config import CONFIG, PRESETS, TrainConfig

    whole = TrainConfig(
        data=str(data.resolve()), direction="mr2ct", **{**PRESETS["cpu"], "minutes": minutes, "validate_every": 50}
    )
    for name, (_, weights) in STEPS.items():
        kept = results / f"ablation-{name}.json"
        if kept.is_file():
            continue
        config = replace(whole, losses=HybridWeights(**weights))
        if name == "5-cycle":
            config = replace(config, unpaired_mr=(str(unpaired.resolve()),))
        run = runs / name
        if (run / CONFIG).is_file():
            resume_training(run)
        else:
            new_training(config, run)
        keep_figures(run, kept)
    teachers = {title: runs / name / "last.pt" for name, (title, _) in STEPS.items()}
    if all(path.is_file() for path in teachers.values()):
        write_bytes(sheet, drawn({title: load_checkpoint(path).generator for title, path in teachers.items()}))


def keep_figures(run: Path, path: Path) -> None:
    """What a finished run measured and how it was configured, without folders of this machine, as JSON."""
    from sccg_teacher_student.train_config import CONFIG

    config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["config"] = {key: value for key, value in config.items() if key not in _PRIVATE}
    write_text(path, json.dumps(facts, indent=2) + "\n")


def render_ablation(results: Path) -> str:
    """Markdown table of the steps, measured or not.

    Raises
    ------
    InputError
        Results cannot be read.
    """
    lines = [f"| objective | steps | {' | '.join(FIGURES)} |", f"|---|---|{'---|' * len(FIGURES)}"]
    for name, (title, _) in STEPS.items():
        path = results / f"ablation-{name}.json"
        if not path.is_file():
            lines.append(f"| {title} | not measured |{' |' * len(FIGURES)}")
            continue
        with figures_of(path, "figures of a training") as facts:
            lines.append(f"| {title} | {facts['steps']} | {_cells(facts['teachers']['mr2ct']['last'], FIGURES)} |")
    return "\n".join(lines) + "\n"


def render_teachers(results: Path) -> str:
    """Markdown table of teachers that ``bench`` measured in one run, by direction (``DIRECTION.json``).

    Raises
    ------
    InputError
        A direction has no results, or they cannot be read.
    """
    from sccg_bench.results import read_results

    lines = [f"| direction | teacher | {' | '.join(TO_REAL)} |", f"|---|---|{'---|' * len(TO_REAL)}"]
    for direction in get_args(Direction):
        lines += [
            f"| `{direction}` | {row.name} | {_cells(row.quality, TO_REAL)} |"
            for row in read_results(results / f"{direction}.json").rows
            if row.role in ("teacher", "model") and row.quality is not None
        ]
    return "\n".join(lines) + "\n"


def _cells(figures: Mapping[str, float | None], names: Sequence[str]) -> str:
    return " | ".join("" if (value := figures[name]) is None else f"{value:.4g}" for name in names)


if __name__ == "__main__":
    try:
        typer.run(main)
    except SccgError as error:
        sys.exit(f"error: {error}")
