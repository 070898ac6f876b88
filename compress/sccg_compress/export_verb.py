"""``export``: a bundle for one engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccg_compress.verb_options import DataOption, DirectionOption, IntensityOption, JsonOption, parse_size, was_given
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_runtime.contract import Precision


def export(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="Run folder or checkpoint; default: the newest run.")] = None,
    target: Annotated[str, typer.Option(help="openvino, ort, tensorrt-rtx or tensorrt; see doctor.")] = "openvino",
    fp32: Annotated[bool, typer.Option("--fp32", help="Float32 (default).")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="openvino: weights stored in FP16, arithmetic float32; tensorrt*: FP16.")
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
    quantizer: Annotated[
        str | None,
        typer.Option(help="INT8 by nncf, ort or inc. [default: openvino: nncf, ort: ort]"),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Engine size as ROWSxCOLUMNS; default: the trained size.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Bundle to write; default: RUN/STUDENT-TARGET-PRECISION.sccg, or beside any other checkpoint "
            "CHECKPOINT-TARGET-PRECISION.sccg; size, GPU, quantizer, 7bit and seed stand in it where they are chosen."
        ),
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
        bool, typer.Option("--saturation-safe", help="Seven-bit INT8 weights for ONNX Runtime on CPUs without VNNI.")
    ] = False,
    no_old_cpu_check: Annotated[
        bool, typer.Option("--no-old-cpu-check", help="Do not run INT8 OpenVINO engines with AVX2 kernels as well.")
    ] = False,
    model_repository: Annotated[
        Path | None, typer.Option(help="Also add the network to this folder for Triton and OpenVINO Model Server.")
    ] = None,
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
    if was_given(context, "seed") and not int8:
        raise InputError("--seed is of the slices that --int8 is calibrated on: leave it out")
    if no_old_cpu_check and not (int8 and target == "openvino"):
        raise InputError("--no-old-cpu-check is for --int8 --target openvino: leave it out")
    export_model(
        model,
        target=target,
        precision=asked[0] if asked else "fp32",
        gpu_arch=gpu_arch,
        quantizer=quantizer,
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
        model_repository=model_repository,
        json_out=json_out,
    )
