"""Stand-ins for what a study calls: distil, export and bench leave what they leave, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, Lab

from sccg_bench.latency import summarise_blocks
from sccg_bench.results import Results, Row
from sccg_bench.run import BenchResult
from sccg_compress import study_command
from sccg_runtime.errors import RefusedError
from sccg_runtime.files import sha256
from sccg_teacher_student.distill_config import DistillConfig

NEAR = {"to_teacher_psnr_db": 30.0, "to_teacher_psnr_head_db": 25.0}
TO_FP32 = {"engine_to_fp32_psnr_db": 60.0, "engine_to_fp32_psnr_head_db": 100.0}


def fake_study(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put them in place; the list says what was done."""
    done: list[str] = []

    def new_run(config: DistillConfig, folder: Path) -> None:
        done.append(f"distil {folder.name}")
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json())
        (folder / "labels.json").write_text(json.dumps({"views": config.views}))
        (folder / "student.safetensors").touch()

    def resume_run(folder: Path) -> None:
        done.append(f"resume {folder.name}")
        (folder / "student.safetensors").touch()

    def export_model(model: Path, *, out: Path, target: str, **_: Any) -> None:
        done.append(f"export {model.name}{'' if target == 'openvino' else f' to {target}'}")
        if "8x2" in model.name:
            raise RefusedError("drift 30.0 dB")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()

    def run_models(models: list[Path], *, teacher: Path, direction: str, **_: Any) -> BenchResult:
        done.append(f"bench {' '.join(path.name for path in models)}")
        rows = [
            Row(name="teacher", role="teacher", latency_ms=summarise_blocks([[200.0 + len(done)]])),
            Row(name="teacher, OpenVINO", role="teacher engine", engine="openvino", precision="fp32"),
        ]
        for number, path in enumerate(models):
            for bundle in [path] if path.suffix == ".sccg" else sorted(path.glob("*.sccg")):
                name, engine = ("ort", "onnxruntime") if "-ort-" in bundle.name else ("int8", "openvino")
                rows.append(
                    Row(
                        name=name if len(models) == 1 else f"{name} ({path.name})",
                        role="teacher engine" if path.suffix == ".sccg" else "model",
                        engine=engine,
                        precision="int8",
                        latency_ms=summarise_blocks([[2.0 + len(done) + number]]),
                        drift=NEAR | {"to_teacher_psnr_db": 20.0 + len(done) + number},
                        engine_drift=TO_FP32 | {"engine_to_fp32_psnr_head_db": 60.0},
                        per_slice=(
                            {"case": "a", "slice": "1", "quality": {"ssim": 0.5}, "drift": NEAR | {"other": 1.0}}
                            | {"engine_drift": TO_FP32 | {"other": 1.0}},
                        ),
                    )
                )
        found = Results(
            machine={"cpu": "one"},
            provenance={"cases": ["a"], "hashes": {"teacher": sha256(teacher)}},
            rows=tuple(rows),
            direction="mr2ct",
        )
        return BenchResult(found, (), {})

    for function in (new_run, resume_run, export_model, run_models):
        monkeypatch.setattr(study_command, function.__name__, function)
    return done


def study(run: Cli, lab: Lab, *arguments: object) -> Any:
    return run("study", "--teacher", lab.teacher, "--out", "study", "--steps", 5, *arguments)
