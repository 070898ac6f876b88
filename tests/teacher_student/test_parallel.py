"""Two processes under torchrun learn what one does with the joint batch, and only the first writes.

Adam's first moment after one step is the gradient times 1 - beta1, so ``last.pt`` tells the gradients.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from teacher_fakes import save_teacher, write_slices
from torch import Tensor

from sccg_teacher_student import parallel
from sccg_teacher_student.data.source import open_data
from sccg_teacher_student.distill import distill
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.loss_weights import LossWeights
from sccg_teacher_student.networks.patchgan import JointBatchNorm2d
from sccg_teacher_student.reporter import Reporter
from sccg_teacher_student.train import train
from sccg_teacher_student.train_config import TrainConfig

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="this torch has no gloo"
)


def under_torchrun(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``sccg-compress`` in two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "sccg_compress", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def state_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    return content


def moments(*optimizers: dict[str, Any]) -> list[Tensor]:
    """Means of the gradients, by AdamW or by Muon."""
    states = [state for optimizer in optimizers for state in optimizer["state"].values()]
    return [state["exp_avg"] if "exp_avg" in state else state["momentum_buffer"] for state in states]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    """Equal up to float32's rounding, on the scale of the largest gradient."""
    assert len(found) == len(expected) > 0
    largest = max(float(tensor.abs().max()) for tensor in expected)
    assert largest > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * largest)


def assert_logged_alike(found: Path, expected: Path) -> None:
    """The logged losses are those of the whole batch, not of the first process's part."""
    rows = []
    for folder in (found, expected):
        with (folder / "log.csv").open(newline="") as file:
            rows.append([{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)])
    assert len(rows[0]) == len(rows[1]) == 1
    for row in (rows[0][0], rows[1][0]):
        del row["seconds"]
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_train_in_two_processes_has_the_gradients_of_one(pairs_folder: Path, tmp_path: Path, mixed: bool) -> None:
    """``mixed``: one process has 2 pairs and an unpaired CT, the other 1 pair and an unpaired CT and MR."""
    batch = 6 if mixed else 4
    options = {"--data": pairs_folder, "--generator": "resnet-4x1-in", "--steps": 1, "--batch": batch}
    options |= {"--device": "cpu", "--amp": "off", "--size": "stored", "--out": tmp_path / "two"}
    more: dict[str, Any] = {}
    if mixed:
        for modality, count in (("mr", 1), ("ct", 2)):
            write_slices(tmp_path / modality / "x", count, (32, 48), seed=5)
            more[f"unpaired_{modality}"] = (str(tmp_path / modality),)
    unpaired = [f"--unpaired={modality}:{tmp_path / modality}" for modality in ("mr", "ct") if mixed]
    said = under_torchrun("train", *(part for option in options.items() for part in option), *unpaired, cwd=tmp_path)
    config = TrainConfig(
        data=str(pairs_folder),
        direction="mr2ct",
        size=None,
        **more,
        generator="resnet-4x1-in",
        epochs=None,
        steps=1,
        batch=batch,
        device="cpu",
        amp="off",
    )
    (tmp_path / "one").mkdir()
    assert train(config, open_data(pairs_folder), tmp_path / "one", Reporter()) is not None
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert_close(moments(*two["optimizer"]), moments(*one["optimizer"]))
    for name, statistics in one["beside"]["discriminator_mr2ct"].items():
        torch.testing.assert_close(
            two["beside"]["discriminator_mr2ct"][name].float(), statistics.float(), atol=1e-4, rtol=1e-3
        )

    def left(folder: Path) -> set[str]:
        return {path.name for path in folder.iterdir() if not path.name.startswith("events")} - {"train.json"}

    assert left(tmp_path / "two") == left(tmp_path / "one")
    assert len(list((tmp_path / "two").glob("events*"))) == 1
    assert_logged_alike(tmp_path / "two", tmp_path / "one")
    assert said.stdout.count("teacher_mr2ct.safetensors: resnet-4x1-in") == 1
    assert said.stderr.count("run folder:") == 1


@pytest.mark.parametrize("student", ["resnet-4x1-in", "s2d-16x2-h8-nostd-in1-tanh"])
def test_distill_in_two_processes_has_the_gradients_of_one(pairs_folder: Path, tmp_path: Path, student: str) -> None:
    """With every loss but feature matching, and views without a reference (students have no batch norm; s2d rounds)."""
    teacher = save_teacher(tmp_path / "net_mr2ct.pth")
    write_slices(tmp_path / "more" / "x", 6, (32, 48), seed=5)
    options = {"--teacher": teacher, "--data": pairs_folder, "--student": student, "--steps": 1, "--views": 16}
    options |= {"--batch": 6, "--device": "cpu", "--amp": "off", "--unpaired": tmp_path / "more"}
    options |= {"--weight-adversarial": 0.1, "--weight-reference": 0.5, "--weight-ssim": 0.5}
    options |= {"--out": tmp_path / "runs" / "two"}
    under_torchrun("distill", *(part for option in options.items() for part in option), cwd=tmp_path)
    config = DistillConfig(
        teacher=str(teacher),
        direction="mr2ct",
        data=str(pairs_folder),
        unpaired=(str(tmp_path / "more"),),
        student=student,
        minutes=None,
        steps=1,
        views=16,
        batch=6,
        device="cpu",
        amp="off",
        losses=LossWeights(adversarial=0.1, reference=0.5, ssim=0.5),
    )
    (tmp_path / "one").mkdir()
    assert distill(config, open_data(pairs_folder), tmp_path / "one", tmp_path / "cache", Reporter()) is not None
    two, one = state_of(tmp_path / "runs" / "two"), state_of(tmp_path / "one")
    assert_close(moments(*two["optimizer"]), moments(*one["optimizer"]))
    assert_close(moments(two["beside"]["critic_optimizer"]), moments(one["beside"]["critic_optimizer"]))
    assert_logged_alike(tmp_path / "runs" / "two", tmp_path / "one")
    assert (tmp_path / "runs" / "latest").read_text() == "two\n"


def test_alone_nothing_is_shared() -> None:
    with parallel.joined(torch.device("cpu")):
        assert (parallel.processes(), parallel.rank()) == (1, 0)
        assert parallel.agreed({"a": 1}) == {"a": 1}
    module, values = torch.nn.Linear(1, 1), torch.tensor([1.0, 2.0])
    assert parallel.wrapped(module) is module
    assert torch.equal(parallel.most(values), values)
    assert parallel.gathered("alone") == ["alone"]
    assert torch.equal(parallel.mean(values), values)


def test_the_joint_batch_norm_is_batch_norm_where_one_process_trains() -> None:
    torch.manual_seed(0)
    plain, joint, x = torch.nn.BatchNorm2d(3), JointBatchNorm2d(3), torch.randn(2, 3, 4, 5)
    assert torch.equal(plain(x), joint(x))
    assert torch.equal(plain.eval()(x), joint.eval()(x))
