"""Helpers live beside the tests; every test computes on one thread. What takes seconds is made once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import small_models

from sccg_bench.protocols import Pair
from sccg_export.calibration import choose_calibration
from sccg_export.export import export
from sccg_export.gate import DriftBudget
from sccg_export.request import ExportRequest, ExportResult
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint
from sccg_teacher_student.data.source import DataSource, open_data

LENIENT = DriftBudget(
    min_mean_psnr_db=25, min_worst_psnr_db=25, min_delta_psnr_db=-5, min_delta_ssim=-0.5, max_delta_mae_u8=20
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("SCCG_TEST_DATA")
    if not folder:
        pytest.skip("SCCG_TEST_DATA is not set: no real data")
    return Path(folder)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.make_phantom(tmp_path_factory.mktemp("export") / "phantom")


@pytest.fixture(scope="session")
def source(phantom: Path) -> DataSource:
    return open_data(phantom)


@pytest.fixture(scope="session")
def teacher(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("teacher")
    return load_checkpoint(small_models.train(small_models.TEACHER, phantom, folder / "teacher_mr2ct.safetensors"))


@pytest.fixture(scope="session")
def student(phantom: Path, teacher: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    return load_checkpoint(small_models.train(small_models.STUDENT, phantom, path, teacher=teacher.path))


@pytest.fixture(scope="session")
def held_out(student: Checkpoint, source: DataSource) -> list[Pair]:
    assert student.record is not None
    return list(source.pairs(student.record.val_cases))


@pytest.fixture(scope="session")
def request_for(student: Checkpoint, source: DataSource, held_out: list[Pair]) -> Callable[..., ExportRequest]:
    """A request for the student; keywords replace its fields."""
    assert student.record is not None
    calibration = choose_calibration(source, student.record.train_cases, "mr2ct", seed=0)

    def make(target: str = "openvino", precision: str = "int8", **changes: Any) -> ExportRequest:
        assert student.record is not None
        wanted = ExportRequest(
            checkpoint=student,
            record=student.record,
            target=target,
            precision=precision,  # type: ignore[arg-type]
            size=student.record.trained_size,
            calibration=calibration if precision == "int8" else None,
            pairs=held_out,
            measured_on="phantom",
            measured_on_simulated=True,
            budget=LENIENT,
        )
        return replace(wanted, **changes)

    return make


@pytest.fixture(scope="session", params=["openvino-fp32", "openvino-fp16", "openvino-int8", "ort-fp32", "ort-int8"])
def exported(
    request: pytest.FixtureRequest,
    request_for: Callable[..., ExportRequest],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ExportRequest, ExportResult, Path]:
    """The student as one bundle per target and precision: (what was asked, what came of it, the file)."""
    torch.set_num_threads(1)
    target, precision = request.param.split("-")
    wanted = request_for(target, precision)
    path = tmp_path_factory.mktemp("bundles") / f"{request.param}.sccg"
    return wanted, export(wanted, path), path
