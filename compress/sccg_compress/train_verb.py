"""``train``: the paper's scCycleGAN teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sccg_compress.verb_options import IntensityOption, JsonOption, parse_size, refuse_beside_resume
from sccg_runtime.errors import InputError


def train(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of cases with MR and CT; default: the phantom.")
    ] = None,
    direction: Annotated[str, typer.Option(help="mr2ct, ct2mr or both (with cycle consistency).")] = "mr2ct",
    unpaired: Annotated[
        list[str] | None,
        typer.Option(help="Folder of input slices without partner, or mr:DIR, ct:DIR; repeatable. Adds the cycle."),
    ] = None,
    intensity: IntensityOption = None,
    preset: Annotated[str, typer.Option(help="paper (its Table 1) or cpu; further options change it.")] = "paper",
    size: Annotated[
        str | None,
        typer.Option(
            help="ROWSxCOLUMNS that slices are resampled to, or stored: left alone. [paper: 512x512, cpu: stored]"
        ),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="standard (two down-samplings), literal (none) or resnet-WxB[-bn|-in].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times that every pair is seen. [paper: 200]")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of --epochs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time, instead of --epochs. [cpu: 45]")] = None,
    batch: Annotated[int | None, typer.Option(help="Slices per step over all processes. [paper: 8, cpu: 2]")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts that a batch is computed in, to save memory. [default: 1]")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam, or muon for the generator's convolutions. [paper: adam, cpu: muon]")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam. [paper: 1e-4, cpu: 4e-4]")] = None,
    cosine: Annotated[
        bool | None,
        typer.Option(
            "--cosine/--constant",
            help="Whether the learning rate warms up and falls, or stays. [paper: constant, cpu: cosine]",
        ),
    ] = None,
    average_decay: Annotated[
        float | None,
        typer.Option(help="Of the moving average of the weights, per step; 0: none. [paper: 0, cpu: 0.995]"),
    ] = None,
    weight_adversarial: Annotated[float | None, typer.Option(help="Of the least-squares GAN term. [1]")] = None,
    weight_pixel: Annotated[float | None, typer.Option(help="Of pixel translation. [100]")] = None,
    weight_structure: Annotated[
        float | None, typer.Option(help="Of structural consistency. [paper: 10, cpu: 1]")
    ] = None,
    weight_cycle: Annotated[
        float | None, typer.Option(help="Of cycle consistency, with both or --unpaired. [10]")
    ] = None,
    uniform_pixels: Annotated[
        bool, typer.Option("--uniform-pixels", help="Pixel translation without the discriminator's weights P_pix.")
    ] = False,
    structure_features: Annotated[
        str | None, typer.Option(help="vgg:FILE (torchvision's VGG16), encoder or mind. [default: encoder]")
    ] = None,
    refine: Annotated[bool, typer.Option("--refine", help="Align every pair rigidly before training.")] = False,
    no_augment: Annotated[bool, typer.Option("--no-augment", help="Leave the slices as they are.")] = False,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps from one validation to the next. [paper: 500, cpu: 200]")
    ] = None,
    save_format: Annotated[
        str | None, typer.Option(help="sccg, or cyclegan: that repository's layout as well. [default: sccg]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and changes. [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")] = None,
    amp: Annotated[
        str | None, typer.Option(help="auto (bf16 where the hardware has it), off, bf16 or fp16. [default: auto]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/DATE-teacher-DIRECTION.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run folder.")] = None,
    json_out: JsonOption = None,
) -> None:
    """Train a teacher as the paper does: PatchGAN, P_pix-weighted L1, structural consistency, cycle consistency."""
    from sccg_compress.train_command import new_training, resume_training

    if resume is not None:
        refuse_beside_resume(context)
        resume_training(resume, json_out=json_out)
        return
    from sccg_compress.sources import choose_data
    from sccg_teacher_student.teaching import HybridWeights
    from sccg_teacher_student.train_config import PRESETS, TrainConfig

    if preset not in PRESETS:
        raise InputError(f"--preset {preset!r} is none of {', '.join(PRESETS)}")
    length = {"epochs": epochs, "steps": steps, "minutes": minutes}
    chosen: dict[str, Any] = {
        **PRESETS[preset],
        **(length if any(value is not None for value in length.values()) else {}),
    }
    options = {
        "generator": generator,
        "batch": batch,
        "accumulate": accumulate,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "decay": cosine,
        "average_decay": average_decay,
        "structure_features": structure_features,
        "validate_every": validate_every,
        "save_format": save_format,
        "seed": seed,
        "device": device,
        "amp": amp,
    }
    chosen |= {name: value for name, value in options.items() if value is not None}
    if weight_cycle and direction != "both" and not unpaired:
        raise InputError("--weight-cycle needs --direction both or --unpaired: here is nothing that comes back")
    if structure_features is not None and structure_features.startswith("vgg:"):
        chosen["structure_features"] = f"vgg:{Path(structure_features.removeprefix('vgg:')).resolve()}"
    if size is not None:
        chosen["size"] = None if size == "stored" else parse_size(size)
    chosen |= unpaired_folders(unpaired or [], direction)
    weights = {
        "adversarial": weight_adversarial,
        "pixel": weight_pixel,
        "structure": weight_structure,
        "cycle": weight_cycle,
    }
    losses = replace(
        chosen.pop("losses", HybridWeights()),
        uniform_pixels=uniform_pixels,
        **{name: value for name, value in weights.items() if value is not None},
    )
    if structure_features is not None and not losses.structure:
        raise InputError("--structure-features needs a --weight-structure above zero")
    config = TrainConfig(
        data="",
        direction=direction,
        intensity=None if intensity is None else str(intensity.resolve()),
        losses=losses,
        refine=refine,
        augment=not no_augment,
        **chosen,
    )
    source = choose_data(data, None, intensity)
    new_training(replace(config, data=str(source.path.resolve())), out, json_out=json_out)


def unpaired_folders(asked: list[str], direction: str) -> dict[str, tuple[str, ...]]:
    """``DIR``, ``mr:DIR`` and ``ct:DIR`` as ``unpaired_mr`` and ``unpaired_ct``.

    Raises
    ------
    InputError
        A folder is not there, or with ``both`` does not say its modality.
    """
    from sccg_runtime.direction import parse_direction

    found: dict[str, list[str]] = {"mr": [], "ct": []}
    for text in asked:
        modality, colon, rest = text.partition(":")
        if not colon or modality not in found:
            if direction == "both":
                raise InputError(f"--unpaired {text}: with --direction both say mr:{text} or ct:{text}")
            modality, rest = parse_direction(direction)[:2], text
        if not Path(rest).is_dir():
            raise InputError(f"--unpaired {text}: no such folder")
        found[modality].append(str(Path(rest).resolve()))
    return {f"unpaired_{modality}": tuple(folders) for modality, folders in found.items()}
