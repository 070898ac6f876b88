"""Checkpoints in PyTorch as bench runs them: in the precision that was asked for, on the GPU by the GPU's own clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sccg_runtime.errors import MissingDependencyError
from sccg_teacher_student import cuda_clock
from sccg_teacher_student.cuda_clock import event_time
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import resnet_spec
from sccg_teacher_student.runnables import TorchRunnable

IMAGE = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32)).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small generator as a plain state dict."""
    torch.manual_seed(0)
    path = tmp_path / "latest_net_G.pth"
    torch.save(build_generator(resnet_spec(8, 1, "instance")).state_dict(), path)
    return path


def test_half_precision_is_what_ran_and_stays_close_to_full(checkpoint: Path) -> None:
    full, half = TorchRunnable("full", checkpoint), TorchRunnable("half", checkpoint, precision="fp16")
    outputs = [runnable.open((32, 32), 1)(IMAGE) for runnable in (full, half)]
    counts = [runnable.describe()["precision_ran"] for runnable in (full, half)]
    assert list(counts[0]) == ["fp32"]
    assert list(counts[1]) == ["fp16"]
    assert counts[0]["fp32"] == counts[1]["fp16"] > 5
    assert {output.dtype.name for output in outputs} == {"float32"}
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < 0.05
    assert (full.device_times_ms, full.describe()["device"]) == ([], "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="an NVIDIA GPU is here")
def test_a_gpu_that_is_not_here_is_said(checkpoint: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no CUDA device"):
        TorchRunnable("gpu", checkpoint, "cuda").open((32, 32), 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_every_call_has_a_time_by_events(checkpoint: Path, precision: str) -> None:
    runnable = TorchRunnable("gpu", checkpoint, "cuda", precision)  # type: ignore[arg-type]
    call = runnable.open((32, 32), 1)
    before = len(runnable.device_times_ms)
    call(IMAGE)
    assert len(runnable.device_times_ms) == before + 1
    assert runnable.device_times_ms[-1] > 0
    assert list(runnable.describe()["precision_ran"]) == [precision]


def test_events_enclose_the_work_and_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Event:
        def __init__(self) -> None:
            self.name = f"event {sum(each.startswith('made') for each in seen)}"
            seen.append(f"made {self.name}")

        def record(self) -> None:
            seen.append(f"{self.name} recorded")

        def synchronize(self) -> None:
            seen.append(f"{self.name} waited for")

        def elapsed_time(self, other: Event) -> float:
            return 3.25 if (self.name, other.name) == ("event 0", "event 1") else -1

    monkeypatch.setattr(cuda_clock, "_event", Event)
    times: list[float] = []
    with event_time(times):
        seen.append("work")
    assert seen[2:] == ["event 0 recorded", "work", "event 1 recorded", "event 1 waited for"]
    assert times == [3.25]
