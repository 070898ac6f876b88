"""The table of targets: what was exported, timed and refused, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from command_line import Lab
from ruined import with_outlier

from sccg_compress.pages import targets
from sccg_compress.pages.targets import main, render_targets
from sccg_export.requirements import REQUIREMENTS
from sccg_runtime.errors import InputError
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint


def test_each_precision_is_exported_timed_and_shown(
    lab: Lab, brief: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = MappingProxyType({name: REQUIREMENTS[name] for name in ("ort", "tensorrt")})
    monkeypatch.setattr("sccg_export.requirements.REQUIREMENTS", chosen)
    monkeypatch.setattr("sccg_export.requirements.driver_cuda_version", lambda: None)
    monkeypatch.setattr(targets, "SIZE", (64, 64))
    results = tmp_path / "targets.json"
    main([lab.run], lab.phantom, results)
    rows = json.loads(results.read_text())["rows"]
    assert [(row["target"], row["precision"]) for row in rows] == [
        (target, precision) for target, needed in chosen.items() for precision in needed.precisions
    ]
    fp32 = rows[0]
    assert fp32["engine_to_fp32_psnr_db"] >= fp32["worst_psnr_db"] > 80
    assert fp32["p50_ms"] > 0
    assert fp32["build_seconds"] > 0
    assert all("tensorrt-rtx builds without one" in row["refused"] for row in rows if row["target"] == "tensorrt")
    assert str(tmp_path) not in results.read_text()
    text = render_targets(results)
    assert text.startswith("| model |")
    assert f"| {fp32['model']} | ort | fp32 | {fp32['build_seconds']:.1f} s |" in text
    assert text.count("not exported") == 2


def test_a_model_or_an_engine_that_fails_leaves_a_row_that_says_why(
    lab: Lab, brief: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the builder | broke\nin two lines")

    monkeypatch.setattr("sccg_export.requirements.REQUIREMENTS", MappingProxyType({"ort": REQUIREMENTS["ort"]}))
    monkeypatch.setattr("sccg_export.unsigned_qdq.quantise_qdq", broken)
    monkeypatch.setattr(targets, "SIZE", (64, 64))
    gone = tmp_path / "gone" / "teacher.pth"
    results = tmp_path / "targets.json"
    main([gone, lab.run], lab.phantom, results)
    rows = json.loads(results.read_text())["rows"]
    assert [row["model"] for row in rows] == ["teacher.pth", "teacher.pth", "s2d-16x2", "s2d-16x2"]
    assert all("no model at teacher.pth" in row["refused"] for row in rows[:2])
    assert (rows[2]["refused"], rows[2]["p50_ms"] > 0) == (None, True)
    assert rows[3]["refused"] == "RuntimeError: the builder | broke in two lines"
    line = "| s2d-16x2 | ort | int8 | not exported: RuntimeError: the builder \\| broke in two lines |"
    assert line in render_targets(results)
    assert str(tmp_path) not in results.read_text()


def test_an_engine_over_budget_is_shown_as_it_is_and_marked(
    lab: Lab, brief: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = with_outlier(load_checkpoint(lab.run / "student.safetensors"), 0)
    ruined = tmp_path / "ruined.safetensors"
    save_checkpoint(ruined, kept.generator, kept.spec, kept.record)
    monkeypatch.setattr("sccg_export.requirements.REQUIREMENTS", MappingProxyType({"ort": REQUIREMENTS["ort"]}))
    monkeypatch.setattr(targets, "SIZE", (64, 64))
    results = tmp_path / "targets.json"
    main([ruined], lab.phantom, results)
    fp32, int8 = json.loads(results.read_text())["rows"]
    assert (fp32["refused"], fp32["over_budget"], int8["refused"]) == (None, None, None)
    assert int8["worst_psnr_db"] <= int8["engine_to_fp32_psnr_db"] < 40
    assert "engine_to_fp32_psnr_db" in int8["over_budget"]
    assert int8["p50_ms"] > 0
    assert f"dB, **over budget** | {len(int8['float_layers'])} |" in render_targets(results)


def test_an_engine_for_a_card_names_it_and_what_could_not_be_timed_says_why(tmp_path: Path) -> None:
    row = {
        "model": "resnet-64x9-in",
        "target": "tensorrt-rtx",
        "precision": "fp16",
        "refused": None,
        "gpu_arch": "8.6",
        "build_seconds": 0.94,
        "size_mib": 26.0,
        "engine_to_fp32_psnr_db": 61.25,
        "worst_psnr_db": 58.0,
        "over_budget": None,
        "drift_measured_on": "graph",
        "float_layers": None,
        "p50_ms": None,
        "not_timed": None,
    }
    slow = row | {"target": "ort", "gpu_arch": None, "drift_measured_on": "engine", "not_timed": "no answer in 600 s"}
    results = tmp_path / "targets.json"
    results.write_text(json.dumps({"machine": {"cpu": "a CPU"}, "threads": 2, "warning": None, "rows": [row, slow]}))
    lines = render_targets(results).splitlines()
    named = "| resnet-64x9-in | tensorrt-rtx (SM 8.6) | fp16 | 0.9 s | 26.0 MiB |  | 61.2, 58.0 dB on the graph |  |"
    assert lines[2] == named
    assert lines[3].startswith("| resnet-64x9-in | ort | fp16 |")
    assert "| not timed: no answer in 600 s |" in lines[3]
    assert lines[-1] == "Measured on a CPU, 2 threads."
    results.write_text("[]")
    with pytest.raises(InputError, match=r"targets\.json: cannot be read as figures of targets"):
        render_targets(results)
