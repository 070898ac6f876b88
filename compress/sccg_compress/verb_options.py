"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sccg_runtime.errors import InputError

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of cases with MR and CT; default: the recorded one, else the phantom."),
]
IntensityOption = Annotated[
    Path | None, typer.Option("--intensity", help="Settings file that takes the place of the data's sccg.toml.")
]
DirectionOption = Annotated[
    str | None, typer.Option("--direction", help="mr2ct or ct2mr; default: what the checkpoint or its name says.")
]
WaveletOption = Annotated[float, typer.Option("--weight-wavelet", help="Of the high Haar bands.")]
SsimOption = Annotated[float, typer.Option("--weight-ssim", help="Of 1 - SSIM to the teacher.")]
ReferenceOption = Annotated[
    float, typer.Option("--weight-reference", help="Of L1 to the real image (it buys PSNR by blurring).")
]
AdversarialOption = Annotated[float, typer.Option("--weight-adversarial", help="Of a least-squares GAN term.")]
CacheOption = Annotated[float, typer.Option("--cache-gib", help="Largest size of the label cache in GiB.")]
DecayOption = Annotated[float, typer.Option("--weight-decay", help="Of Muon and AdamW, decoupled.")]


def _no_folder(target: str | None) -> str | None:
    """InputError for a folder, before minutes of work whose result could not be written there."""
    if target is not None and Path(target).is_dir():
        raise InputError(f"--json {target} is a folder: name a file in it")
    return target


JsonOption = Annotated[
    str | None, typer.Option("--json", help="Write the result as JSON; - is stdout.", callback=_no_folder)
]


def parse_size(text: str) -> tuple[int, int]:
    """``512x512`` or ``512`` as (rows, columns) in pixels (InputError otherwise)."""
    rows, _, columns = text.lower().partition("x")
    try:
        size = int(rows), int(columns or rows)
    except ValueError:
        raise InputError(f"size {text!r} is not ROWSxCOLUMNS, such as 512x512") from None
    if not all(16 <= side <= 4096 for side in size):
        raise InputError(f"size {text}: sides must be 16 to 4096 pixels")
    return size


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, rather than having its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_beside_resume(context: typer.Context) -> None:
    """InputError if anything was typed that a resumed run would ignore."""
    beside = sorted(name for name in context.params if name not in ("resume", "json_out") and was_given(context, name))
    if beside:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in beside)
        raise InputError(f"--resume goes on as the run began: leave out {options}")
