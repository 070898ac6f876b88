"""``sccg-compress``: distil, export, bench. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_compress.train_verb import train
from sccg_runtime.errors import InputError, SccgError

if TYPE_CHECKING:
    from sccg_runtime.contract import Precision

app = typer.Typer(
    name="sccg-compress",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distil, quantise and measure MR<->CT generators. Nothing leaves this machine.",
)

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
JsonOption = Annotated[str | None, typer.Option("--json", help="Write the result as JSON; - is stdout.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sccg-compress {version('sccg-compress')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
) -> None:
    """Options before the command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    import logging

    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    if not debug:
        for name in ("nncf", "onnxscript", "torch.onnx", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)


@app.command()
def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of cases.")] = 12,
    slices: Annotated[int, typer.Option(min=1, help="Slices per case.")] = 24,
    size: Annotated[int, typer.Option(min=16, help="Rows and columns in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Write a procedural head phantom: paired DICOM series, CT in HU and T2-weighted MR."""
    from sccg_teacher_student.data.phantom_dicom import write_phantom

    folder = write_phantom(out, patients=patients, slices=slices, size=size, seed=seed, force=force)
    typer.echo(f"{folder}: {patients} cases of {slices} slices, {size}x{size} pixels, simulated")


@app.command()
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
    student: Annotated[
        str, typer.Option(help="resnet-WxB[-bn|-in], s2d-CxB[-plain], or fast, balanced, faithful.")
    ] = "balanced",
    minutes: Annotated[float | None, typer.Option(help="Wall time, labels included. [default: 30]")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of --minutes.")] = None,
    views: Annotated[int | None, typer.Option(help="Labelled views; default: a quarter of the minutes' worth.")] = None,
    cache_gib: Annotated[float, typer.Option(help="Largest size of the label cache in GiB.")] = 4.0,
    batch: Annotated[int, typer.Option(min=1, help="Slices per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW.")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    amp: Annotated[str, typer.Option(help="auto (bf16 where the hardware has it), off, bf16 or fp16.")] = "auto",
    weight_wavelet: Annotated[float, typer.Option(help="Of the high Haar bands.")] = 0.7,
    weight_detail: Annotated[float, typer.Option(help="Of the high bands' energy: against blur.")] = 0.06,
    weight_ssim: Annotated[float, typer.Option(help="Of 1 - SSIM to the teacher.")] = 0.1,
    weight_reference: Annotated[float, typer.Option(help="Of L1 to the real image (it buys PSNR by blurring).")] = 0.0,
    weight_adversarial: Annotated[float, typer.Option(help="Of a least-squares GAN term.")] = 0.0,
    critic: Annotated[
        Path | None, typer.Option(help="Discriminator that the GAN term starts from; train leaves one.")
    ] = None,
    weight_features: Annotated[float, typer.Option(help="Of feature matching; needs --feature-tap.")] = 0.0,
    feature_tap: Annotated[
        list[str] | None, typer.Option(help="TEACHER_MODULE=STUDENT_MODULE by module name; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/DATE-STUDENT-DIRECTION.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run folder.")] = None,
    json_out: JsonOption = None,
) -> None:
    """Make a slim student from a trained teacher."""
    from sccg_compress.distill_command import new_run, resume_run
    from sccg_compress.given import refuse_beside_resume

    if resume is not None:
        refuse_beside_resume(context)
        resume_run(resume, json_out=json_out)
        return
    if teacher is None:
        raise InputError("say --teacher FILE, or --resume RUN")
    from sccg_compress.sources import choose_data, choose_direction
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.distill import DistillConfig
    from sccg_teacher_student.distillation import LossWeights
    from sccg_teacher_student.features import parse_tap
    from sccg_teacher_student.networks.spec import student_spec

    student_spec(student)  # a wrong name is told before anything that takes time
    checkpoint = load_checkpoint(teacher)
    chosen = choose_direction(direction, checkpoint)
    source = choose_data(data, checkpoint.record.data if checkpoint.record else None, intensity)
    config = DistillConfig(
        teacher=str(teacher.resolve()),
        direction=chosen,
        data=str(source.path.resolve()),
        unpaired=tuple(str(path.resolve()) for path in unpaired or ()),
        intensity=None if intensity is None else str(intensity.resolve()),
        reverse_teacher=None if reverse_teacher is None else str(reverse_teacher.resolve()),
        critic=None if critic is None else str(critic.resolve()),
        student=student,
        minutes=30.0 if minutes is None and steps is None else minutes,
        steps=steps,
        views=views,
        cache_gib=cache_gib,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        amp=amp,
        losses=LossWeights(
            wavelet=weight_wavelet,
            detail=weight_detail,
            ssim=weight_ssim,
            reference=weight_reference,
            adversarial=weight_adversarial,
            features=weight_features,
        ),
        taps=tuple(parse_tap(text) for text in feature_tap or ()),
    )
    new_run(config, out, json_out=json_out)


@app.command()
def export(
    model: Annotated[Path | None, typer.Argument(help="Run folder or checkpoint; default: the newest run.")] = None,
    target: Annotated[str, typer.Option(help="openvino, ort or tensorrt-rtx; see doctor.")] = "openvino",
    fp32: Annotated[bool, typer.Option("--fp32", help="Float32 (default).")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="openvino: weights stored in FP16, arithmetic float32; tensorrt-rtx: FP16.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 arithmetic, on CPUs that have it.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers, calibrated on training slices.")] = False,
    data: DataOption = None,
    intensity: IntensityOption = None,
    direction: DirectionOption = None,
    teacher: Annotated[Path | None, typer.Option(help="Measure drift to this teacher; default: the run's.")] = None,
    gpu_arch: Annotated[
        str | None, typer.Option(help="tensorrt-rtx: compute capability of the card. [default: 8.6, RTX 30]")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Engine size as ROWSxCOLUMNS; default: the trained size.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Bundle to write; default: RUN/STUDENT-TARGET-PRECISION.sccg.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the calibration slices.")] = 0,
    min_psnr: Annotated[float, typer.Option(help="Least mean PSNR in dB, engine to its FP32 network.")] = 40.0,
    min_worst_psnr: Annotated[float, typer.Option(help="The same for the worst slice.")] = 36.0,
    max_psnr_drop: Annotated[float, typer.Option(help="Most PSNR in dB lost against the reference.")] = 0.1,
    max_ssim_drop: Annotated[float, typer.Option(help="Most SSIM lost against the reference.")] = 0.002,
    max_mae_rise: Annotated[float, typer.Option(help="Most grey levels of MAE gained against the reference.")] = 0.5,
    max_teacher_psnr_drop: Annotated[
        float | None,
        typer.Option(help="Most PSNR to the teacher in dB lost on the FP32 network; default: told, never refused."),
    ] = None,
    saturation_safe: Annotated[
        bool, typer.Option("--saturation-safe", help="Seven-bit INT8 weights, for CPUs without VNNI.")
    ] = False,
    no_old_cpu_check: Annotated[
        bool, typer.Option("--no-old-cpu-check", help="Do not run INT8 OpenVINO engines with AVX2 kernels as well.")
    ] = False,
    json_out: JsonOption = None,
) -> None:
    """Make a .sccg bundle for one engine and measure what that changed; refuse if it was too much."""
    from sccg_compress.export_command import export_model
    from sccg_export.gate import DriftBudget

    given: dict[Precision, bool] = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    asked = [name for name, wanted in given.items() if wanted]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(f'--{name}' for name in asked)} exclude each other")
    if out is not None and (out.suffix != ".sccg" or out.is_dir()):
        raise InputError(f"--out {out}: a bundle is a file whose name ends in .sccg")
    export_model(
        model,
        target=target,
        precision=asked[0] if asked else "fp32",
        gpu_arch=gpu_arch,
        data=data,
        intensity=intensity,
        direction=direction,
        teacher=teacher,
        size=None if size is None else parse_size(size),
        out=out,
        seed=seed,
        budget=DriftBudget(
            min_mean_psnr_db=min_psnr,
            min_worst_psnr_db=min_worst_psnr,
            min_delta_psnr_db=-max_psnr_drop,
            min_delta_ssim=-max_ssim_drop,
            max_delta_mae_u8=max_mae_rise,
            max_teacher_psnr_drop_db=max_teacher_psnr_drop,
        ),
        saturation_safe=saturation_safe,
        old_cpu_check=not no_old_cpu_check,
        json_out=json_out,
    )


@app.command()
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
        typer.Option(help="quick (64 queries and 3 s a model) or full (1024 and 600 s). [default: quick]"),
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


@app.command()
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
    for path in results:
        found = read_results(path)
        folder = out if len(results) == 1 else out / path.stem
        number = 1
        while folder in folders:  # every bench run calls its file result.json
            number += 1
            folder = out / f"{path.stem}-{number}"
        folders.append(folder)
        write_html(folder / "report.html", found)
        write_markdown(folder / "report.md", found)
        write_csv(folder, found)
        typer.echo(str(folder / "report.html"))


@app.command("bench-overhead")
def bench_overhead(
    bundle: Annotated[Path, typer.Argument(help="Bundle whose engine is called.")],
    size: Annotated[str, typer.Option(help="Size of the slices.")] = "512x512",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: physical cores.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each of the two.")] = 4,
    queries: Annotated[int, typer.Option(min=1, help="Counted queries per turn.")] = 200,
    json_out: JsonOption = None,
) -> None:
    """Median of a bare engine loop against bench's: what measuring itself adds (2 % at most is wanted)."""
    from sccg_compress.overhead_command import measure_overhead

    measure_overhead(bundle, size=parse_size(size), threads=threads, rounds=rounds, queries=queries, json_out=json_out)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="result.json of the run before.")],
    b: Annotated[Path, typer.Argument(help="result.json of the run after.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="METRIC > NUMBER, or < NUMBER; with an x behind the number, a multiple of A's figure. Repeatable."
        ),
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="Row to look at; repeatable. Default: all of A.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare different machines, engines or slices.")] = False,
    json_out: JsonOption = None,
) -> None:
    """Hold one bench run against another; exit code 3 names the rows that broke a --fail-if."""
    from sccg_compress.compare_command import compare_files

    compare_files(a, b, fail_if or [], rows=row or [], force=force, json_out=json_out)


reader_study_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(reader_study_app, name="reader-study")


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


@app.command()
def doctor(json_out: JsonOption = None) -> None:
    """Show what each target needs, what of it is here, and how to get the rest."""
    from sccg_compress.doctor_command import show_doctor

    show_doctor(json_out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; made anew.")] = Path("demo"),
) -> None:
    """Walk the whole way on the phantom in a few minutes: teacher, student, INT8 bundles, bench, DICOM."""
    from sccg_compress.demo import run_demo

    run_demo(out)


app.command()(train)


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


def main() -> None:
    """Run a command; one line and an exit code for what goes wrong (0 done, 2 bad input, 3 refused, 4 not trusted)."""
    try:
        # typer gives the exit code of an Exit, and 130 after Ctrl-C
        code = app(standalone_mode=False, prog_name="sccg-compress")
        if isinstance(code, int) and code:
            sys.exit(code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except SccgError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:  # a full disk, a folder without rights
        if "--debug" in sys.argv or error.strerror is None:
            raise
        where = error.filename2 or error.filename
        sys.exit(_fail(error.strerror if where is None else f"{where}: {error.strerror}", 2))
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's usage errors
        if usage is None:
            raise
        sys.exit(_fail(usage(), 2))


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
