"""``reader-study``: a blinded page for readers, and the score of their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sccg_compress.verb_options import DataOption, IntensityOption, JsonOption
from sccg_runtime.errors import InputError

reader_study_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@reader_study_app.callback()
def reader_study(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Bundle that makes the synthetic slices.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="FILE.html, or a folder; the key lies beside it.")] = None,
    data: DataOption = None,
    intensity: IntensityOption = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all; default: test, else val.")] = None,
    slices: Annotated[
        int | None, typer.Option(min=1, help="Levels, each once real and once synthetic. [default: 20]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a study; default: drawn, kept in the key.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page and its key.")] = False,
) -> None:
    """Write a blinded page of real and synthetic slices for readers, and its key; or score the answers."""
    if context.invoked_subcommand is not None:
        if bundle is not None or out is not None:
            raise InputError("reader-study: --bundle and --out make a page, `score` reads answers: one at a time")
        return
    if bundle is None or out is None:
        raise InputError("say --bundle FILE.sccg and --out FILE.html, or `reader-study score ANSWERS.json --key KEY`")
    from sccg_compress.reader_command import make_reader_study

    make_reader_study(bundle, out, data=data, intensity=intensity, split=split, slices=slices, seed=seed, force=force)


@reader_study_app.command("score")
def reader_study_score(
    answers: Annotated[list[Path], typer.Argument(help="Files that readers saved.")],
    key: Annotated[Path, typer.Option("--key", help="The key that was written beside the page.")],
    json_out: JsonOption = None,
) -> None:
    """Share of positive answers (4 and 5) to real and synthetic slices, with Wilson 95 % intervals."""
    from sccg_compress.reader_command import score_reader_study

    score_reader_study(answers, key, json_out)
