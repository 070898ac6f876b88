"""``study``: many students under equal conditions, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sccg_compress.verb_options import (
    AdversarialOption,
    CacheOption,
    DataOption,
    DecayOption,
    DirectionOption,
    IntensityOption,
    ReferenceOption,
    SsimOption,
    WaveletOption,
)
from sccg_teacher_student.loss_weights import USUAL, USUAL_DECAY, LossWeights


def study(
    teacher: Annotated[Path, typer.Option(help="Checkpoint of the trained generator.")],
    out: Annotated[Path, typer.Option(help="Folder of rows, runs, table and plot; what is there already stays.")],
    student: Annotated[
        list[str] | None,
        typer.Option(help="Name, or teacher for its own INT8 engines; repeatable. Default: teacher and every form."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable. [default: 0]")] = None,
    direction: DirectionOption = None,
    data: DataOption = None,
    unpaired: Annotated[list[Path] | None, typer.Option(help="Folder of further input slices; repeatable.")] = None,
    reverse_teacher: Annotated[
        Path | None, typer.Option(help="Teacher of the other direction, for --unpaired of the output modality.")
    ] = None,
    intensity: IntensityOption = None,
    views: Annotated[
        int | None, typer.Option(min=1, help="Labelled views that all students of a seed learn from. [default: 1024]")
    ] = None,
    cache_gib: CacheOption = 4.0,
    weight_wavelet: WaveletOption = USUAL.wavelet,
    weight_ssim: SsimOption = USUAL.ssim,
    weight_reference: ReferenceOption = USUAL.reference,
    weight_adversarial: AdversarialOption = USUAL.adversarial,
    weight_decay: DecayOption = USUAL_DECAY,
    minutes: Annotated[
        float | None, typer.Option(help="Training of each student, the labels not counted. [default: 8]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each student, instead of --minutes.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="openvino or ort: INT8 engines to make; repeatable. [default: openvino]")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Row, named without direction and seed, that the table of gains holds all others against."),
    ] = None,
) -> None:
    """Train and measure students of one teacher one after another; go on where an earlier study ended."""
    from sccg_compress.sources import choose_data, choose_direction
    from sccg_compress.study_command import VIEWS, run_study
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.distill_config import DistillConfig

    checkpoint = load_checkpoint(teacher)
    config = DistillConfig(
        teacher=str(teacher.resolve()),
        direction=choose_direction(direction, checkpoint),
        data=str(choose_data(data, checkpoint.record, intensity).path.resolve()),
        unpaired=tuple(str(path.resolve()) for path in unpaired or ()),
        intensity=None if intensity is None else str(intensity.resolve()),
        reverse_teacher=None if reverse_teacher is None else str(reverse_teacher.resolve()),
        minutes=8.0 if minutes is None and steps is None else minutes,
        steps=steps,
        views=views or VIEWS,
        cache_gib=cache_gib,
        weight_decay=weight_decay,
        losses=LossWeights(
            wavelet=weight_wavelet, ssim=weight_ssim, reference=weight_reference, adversarial=weight_adversarial
        ),
    )
    run_study(config, student or None, seed or [0], out, targets=target or ["openvino"], against=against)
