"""``sccg-compress demo``: the whole way on the phantom, in order, said aloud."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from sccg_compress import runs
from sccg_compress.bench_command import run_models
from sccg_compress.console import result, say
from sccg_compress.distill_command import new_run
from sccg_compress.export_command import export_model
from sccg_compress.train_command import new_training
from sccg_runtime.errors import InputError, RefusedError

MARKER = ".sccg-demo"
SIZE = 128
TEACHER_MINUTES = 1.0
DISTILL_MINUTES = 1.2
VIEWS = 512  # this teacher is quick: in half of the time it labels more views than there are draws


def run_demo(out: Path) -> None:
    """Make phantom, teacher, student, bundles, report and a converted series below ``out``.

    Raises
    ------
    InputError
        ``out`` exists and was not made by the demo.
    """
    from sccg_export.gate import DriftBudget
    from sccg_teacher_student.data.phantom_dicom import write_phantom
    from sccg_teacher_student.distill_config import DistillConfig
    from sccg_teacher_student.teaching import HybridWeights
    from sccg_teacher_student.train_config import TrainConfig

    started = time.monotonic()
    out = out.resolve()  # a link's target is emptied, not the link
    if out.exists():
        if not (out / MARKER).is_file():
            raise InputError(f"{out} exists and is not a demo folder; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).touch()

    def step(number: int, text: str) -> None:
        say(f"\n[{number}/6, {time.monotonic() - started:.0f} s] {text}")

    step(1, f"phantom: 12 simulated heads of 12 slices, {SIZE}x{SIZE} pixels, paired MR and CT series")
    data = write_phantom(out / "phantom", patients=12, slices=12, size=SIZE)

    step(2, f"teacher: a small CycleGAN generator learns mr2ct from them for {TEACHER_MINUTES:g} min")
    lesson = TrainConfig(
        data=str(data.resolve()),
        direction="mr2ct",
        size=None,
        generator="resnet-16x3-in",
        epochs=None,
        minutes=TEACHER_MINUTES,
        batch=4,
        learning_rate=1e-3,
        decay=True,
        average_decay=0.999,
        losses=HybridWeights(adversarial=0, structure=0, uniform_pixels=True),
        augment=False,
        device="cpu",
    )
    teacher = new_training(lesson, out / "teacher") / "teacher_mr2ct.safetensors"

    step(3, f"distill: the student s2d-32x4-tanh learns from the teacher for {DISTILL_MINUTES:g} minutes")
    config = DistillConfig(
        teacher=str(teacher.resolve()),
        direction="mr2ct",
        data=str(data.resolve()),
        student="s2d-32x4-tanh",
        minutes=DISTILL_MINUTES,
        views=VIEWS,
        device="cpu",
    )
    run = new_run(config, out / runs.RUNS / "demo")

    step(4, "export: INT8 bundles for OpenVINO and ONNX Runtime, checked against the FP32 student")
    bundles = [
        export_model(run, target=target, precision="int8", budget=DriftBudget()) for target in ("openvino", "ort")
    ]

    step(5, "bench: latency at 512x512 and drift on the test cases, all models in turns")
    run_models([run], report=out / "report")

    step(6, "convert: the MR series of a test case becomes a synthetic CT series, as a clinic would do it")
    series = sorted((data / "test").iterdir())[0] / "mr"
    made = out / "synthetic-ct"
    arguments = ["convert", str(series), str(made), "--bundle", str(bundles[0])]
    command = [sys.executable, "-P", "-m", "sccg_runtime", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise RefusedError("the conversion failed; its own message is above")
    result(f"\ndone in {time.monotonic() - started:.0f} s: simulated data, so the figures say nothing about patients")
    result(f"report:       {(out / 'report' / 'report.html').resolve()}")
    result(f"bundle:       {bundles[0].resolve()}")
    result(f"DICOM series: {made.resolve()}")
