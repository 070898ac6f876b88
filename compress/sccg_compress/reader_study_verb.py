"""``reader-study``: a blinded page for readers, and the score of their answers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_compress.console import result, say, write_json
from sccg_compress.models import find_model
from sccg_compress.verb_options import DataOption, IntensityOption, JsonOption
from sccg_runtime.errors import InputError
from sccg_runtime.files import write_text

if TYPE_CHECKING:
    from sccg_bench.protocols import Pair
    from sccg_bench.reader.score import Score, Share
    from sccg_bench.reader.study import Level
    from sccg_runtime.bundle import Bundle
    from sccg_runtime.intensity import FloatArray
    from sccg_teacher_student.data.source import DataSource

DEFAULT_SLICES = 20
PAGE = "reader-study.html"
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
    from sccg_bench.reader.study import key_json, make_study, page
    from sccg_compress.known import learned_from
    from sccg_compress.sources import choose_data, other_intensities
    from sccg_runtime.bundle import read_bundle
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.data.splits import bench_cases

    target = out if out.suffix.lower() in (".html", ".htm") else out / PAGE
    key = target.with_name(f"{target.stem}-key.json")
    if folders := [path for path in (target, key) if path.is_dir()]:
        raise InputError(f"{folders[0]} is a folder: choose another --out")
    there = [path for path in (target, key) if path.exists()]
    if there and not force:
        raise InputError(f"{there[0]} exists, and answers may depend on it: choose another --out, or say --force")
    read = read_bundle(bundle)
    checkpoint = find_model(bundle).checkpoint
    record = None if checkpoint is None else load_checkpoint(checkpoint).record
    source = choose_data(data, record, intensity)
    say(*other_intensities(bundle.name, read.contract, source))
    drawn = secrets.randbelow(2**31) if seed is None else seed
    cases = bench_cases(source, split)
    say(*learned_from(bundle.name, record or read.contract, source, cases))
    study = make_study(_levels(read, source, cases, slices, drawn), read.contract.direction, drawn, read.sha256)
    made_from = {"bundle": bundle.name, "sha256": read.sha256, "data": source.path.name, "cases": list(cases)}
    write_text(target, page(study, source.simulated))  # first: without it, answers to the page before keep their key
    write_text(key, key_json(study, made_from | {"simulated_data": source.simulated}))
    half = len(study.shown) // 2
    result(f"{target}: {half} real and {half} synthetic {study.target} slices, blinded and shuffled")
    result(f"{key}: which is which; keep it from the readers")


def _levels(bundle: Bundle, source: DataSource, cases: Sequence[str], slices: int | None, seed: int) -> list[Level]:
    """Random levels of the cases, with what the bundle makes of them."""
    import numpy as np

    from sccg_bench.reader.study import Level
    from sccg_runtime.direction import modalities
    from sccg_runtime.engine import Session, open_session
    from sccg_teacher_student.record import other_scale

    names = [(case, name) for case in cases for name in source.slices(case)]
    takes, gives = modalities(bundle.contract.direction)
    found: dict[int, tuple[Pair, FloatArray, FloatArray]] = {}
    for index in np.random.default_rng(seed).permutation(len(names)):
        pair = source.load(*names[index])
        given, real = pair.image(takes), pair.image(gives)
        if given is not None and real is not None:  # others cannot be shown beside a real image
            found[int(index)] = pair, given, real
        if len(found) == (slices or DEFAULT_SLICES):
            break
    if len(found) < (slices or 1):
        what = "a reader study" if slices is None else f"--slices {slices}"
        raise InputError(f"{what}: {source.path} has {len(found)} pairs of MR and CT in {', '.join(cases)}")
    sessions: dict[tuple[int, int], Session] = {}
    levels = []
    for _, (pair, given, real) in sorted(found.items()):
        size = (given.shape[1], given.shape[2])
        if size not in sessions:
            say(*other_scale(bundle.name, bundle.contract, size, source.spacing_mm([pair.case])))
            sessions[size] = open_session(bundle, size=size)
        levels.append(Level(pair.case, pair.slice, real, sessions[size](given)))
    return levels


@reader_study_app.command("score")
def reader_study_score(
    answers: Annotated[list[Path], typer.Argument(help="Files that readers saved.")],
    key: Annotated[Path, typer.Option("--key", help="The key that was written beside the page.")],
    json_out: JsonOption = None,
) -> None:
    """Share of positive answers (4 and 5) to real and synthetic slices, with Wilson 95 % intervals."""
    from sccg_bench.reader.score import score

    found = score(key, answers)
    write_json(json_out, found.to_dict())
    if json_out != "-":
        for line in lines(found):
            result(line)
    for who, count in found.missing.items():
        say(f"{who}: {count} pictures without an answer, left out")


def lines(found: Score) -> list[str]:
    """What the terminal shows."""
    from sccg_bench.reader.score import PAPER_SHARE, POSITIVE, REMARK

    told = [f"readers: {len(found.readers)}; positive: answers {POSITIVE} and 5"]
    told += [f"{kind:<10} {_share(share)}" for kind, share in found.groups.items()]
    paper = PAPER_SHARE.get(found.direction)
    if paper is not None:
        told.append(f"paper      {paper:.0%} of synthetic (cited: ten radiographers, other data and network)")
    if len(found.readers) > 1:
        told += [
            f"  {who}: {kind} {_share(share)}" for who, own in found.readers.items() for kind, share in own.items()
        ]
    return [*told, REMARK]


def _share(share: Share) -> str:
    return f"{share.share:.1%} positive [{share.low:.1%} to {share.high:.1%}], {share.positive} of {share.answers}"
