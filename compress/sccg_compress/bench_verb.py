"""``bench`` and ``report``: measuring, and what is made of the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sccg_compress.verb_options import DataOption, DirectionOption, IntensityOption, JsonOption, parse_size
from sccg_runtime.errors import InputError


def bench(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Bundles, run folders, checkpoints; default: the newest run.")
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="Teacher checkpoint; default: the run's.")] = None,
    data: DataOption = None,
    intensity: IntensityOption = None,
    direction: DirectionOption = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all; default: test, else val.")] = None,
    size: Annotated[str, typer.Option(help="Size of the latency figures.")] = "512x512",
    profile: Annotated[
        str | None,
        typer.Option(
            help="quick (64 queries and 3 s a model) or full (1024 and 600 s); 10 queries of more than 250 ms. "
            "[default: quick]"
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The same as --profile full.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: physical cores.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu (no rows for GPUs) or cuda (an error where there is none).")
    ] = "auto",
    report: Annotated[Path | None, typer.Option(help="Folder of the report; default: RUN/report.")] = None,
    json_out: JsonOption = None,
) -> None:
    """Measure latency, memory, quality and drift of teacher, students and bundles in one run."""
    from sccg_bench.latency import parse_profile
    from sccg_compress.bench_command import run_models

    if full and profile not in (None, "full"):
        raise InputError(f"--full and --profile {profile} exclude each other")
    run_models(
        models or [],
        teacher=teacher,
        data=data,
        intensity=intensity,
        direction=direction,
        split=split,
        size=parse_size(size),
        profile=parse_profile("full" if full else profile or "quick"),
        threads=threads,
        device=device,
        report=report,
        json_out=json_out,
    )


def report(
    results: Annotated[list[Path], typer.Argument(help="JSON files that bench wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("report"),
) -> None:
    """Write report.html, report.md and CSV again from bench's JSON (pictures are in bench's own report only)."""
    from sccg_bench.report.csv import write_csv
    from sccg_bench.report.html import write_html
    from sccg_bench.report.markdown import write_markdown
    from sccg_bench.results import read_results

    folders: list[Path] = []
    runs = [read_results(path) for path in results]
    for path in results:
        folder = out if len(results) == 1 else out / path.stem
        number = 1
        while folder in folders:  # every bench run calls its file result.json
            number += 1
            folder = out / f"{path.stem}-{number}"
        its_own = (folder / "result.json").is_file() or folder.resolve() == path.resolve().parent
        if its_own and (folder / "report.html").is_file():
            raise InputError(f"{folder} holds a report of bench itself, with pictures: name another --out")
        folders.append(folder)
    for folder, found in zip(folders, runs, strict=True):
        write_html(folder / "report.html", found)
        write_markdown(folder / "report.md", found)
        write_csv(folder, found)
        typer.echo(str(folder / "report.html"))
