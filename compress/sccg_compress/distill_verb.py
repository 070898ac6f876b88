"""``distill``: a slim student from a trained teacher."""

from __future__ import annotations

import os
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
    JsonOption,
    ReferenceOption,
    SsimOption,
    WaveletOption,
    refuse_beside_resume,
    was_given,
)
from sccg_runtime.errors import InputError
from sccg_teacher_student.loss_weights import USUAL, USUAL_DECAY, LossWeights
from sccg_teacher_student.networks.spec import DEFAULT_STUDENT, NAME_HELP


def distill(
    context: typer.Context,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint of the trained generator.")] = None,
    direction: DirectionOption = None,
    data: DataOption = None,
    unpaired: Annotated[list[Path] | None, typer.Option(help="Folder of further input slices; repeatable.")] = None,
    intensity: IntensityOption = None,
    reverse_teacher: Annotated[
        Path | None,
        typer.Option(help="Teacher of the other direction: --unpaired then holds slices of the output modality."),
    ] = None,
    student: Annotated[str, typer.Option(help=f"Name: {NAME_HELP}.")] = DEFAULT_STUDENT,
    budget_ms: Annotated[
        float | None, typer.Option(help="Instead of --student: the one that plan picks for OpenVINO INT8 at 512x512.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time, labels included, validation not. [default: 30]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of --minutes.")] = None,
    views: Annotated[int | None, typer.Option(help="Labelled views; default: half of the minutes' worth.")] = None,
    cache_gib: CacheOption = 4.0,
    batch: Annotated[int, typer.Option(min=1, help="Slices per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW.")] = 2e-3,
    weight_decay: DecayOption = USUAL_DECAY,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    amp: Annotated[str, typer.Option(help="auto (bf16 where the hardware has it), off, bf16 or fp16.")] = "auto",
    detail: Annotated[
        float,
        typer.Option(
            help="Fine detail that the student shall show at least, relative to the teacher's; 0: as it comes."
        ),
    ] = 1.0,
    weight_wavelet: WaveletOption = USUAL.wavelet,
    weight_ssim: SsimOption = USUAL.ssim,
    weight_reference: ReferenceOption = USUAL.reference,
    weight_adversarial: AdversarialOption = USUAL.adversarial,
    critic: Annotated[
        Path | None, typer.Option(help="Discriminator that the GAN term starts from; train leaves one.")
    ] = None,
    weight_features: Annotated[float, typer.Option(help="Of feature matching; needs --feature-tap.")] = USUAL.features,
    feature_tap: Annotated[
        list[str] | None, typer.Option(help="TEACHER_MODULE=STUDENT_MODULE by module name; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/DATE-STUDENT-DIRECTION.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run folder.")] = None,
    json_out: JsonOption = None,
) -> None:
    """Make a slim student from a trained teacher."""
    from sccg_compress.distill_command import new_run, resume_run

    if resume is not None:
        refuse_beside_resume(context)
        resume_run(resume, json_out=json_out)
        return
    if teacher is None:
        raise InputError("say --teacher FILE, or --resume RUN")
    from sccg_compress.sources import choose_data, choose_direction
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.distill_config import DistillConfig
    from sccg_teacher_student.features import parse_tap
    from sccg_teacher_student.networks.spec import student_spec

    student_spec(student)  # a wrong name is told before anything that takes time
    if budget_ms is not None and was_given(context, "student"):
        raise InputError("--budget-ms chooses the student: leave out --student, or the budget")
    if budget_ms is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--budget-ms measures, which processes at once disturb: run plan first, then say --student NAME"
        )
    checkpoint = load_checkpoint(teacher)
    chosen = choose_direction(direction, checkpoint)
    source = choose_data(data, checkpoint.record, intensity)
    if budget_ms is not None:
        from sccg_compress.plan_verb import plan_student

        student = plan_student(budget_ms)
    config = DistillConfig(
        teacher=str(teacher.resolve()),
        direction=chosen,
        data=str(source.path.resolve()),
        unpaired=tuple(str(path.resolve()) for path in unpaired or ()),
        intensity=None if intensity is None else str(intensity.resolve()),
        reverse_teacher=None if reverse_teacher is None else str(reverse_teacher.resolve()),
        critic=None if critic is None else str(critic.resolve()),
        student=student_spec(student).name,  # what a preset means may change before a run is resumed
        minutes=30.0 if minutes is None and steps is None else minutes,
        steps=steps,
        views=views,
        cache_gib=cache_gib,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        device=device,
        amp=amp,
        detail=detail,
        losses=LossWeights(
            wavelet=weight_wavelet,
            ssim=weight_ssim,
            reference=weight_reference,
            adversarial=weight_adversarial,
            features=weight_features,
        ),
        taps=tuple(parse_tap(text) for text in feature_tap or ()),
    )
    new_run(config, out, json_out=json_out)
