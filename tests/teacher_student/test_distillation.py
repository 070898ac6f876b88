"""Every part of the loss trains what it should, and what learns beside the student is resumed with it."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from teacher_fakes import bases, picture, save_teacher
from torch import Tensor

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student import distillation
from sccg_teacher_student.checkpoint import load_checkpoint
from sccg_teacher_student.distillation import DistillTask, beyond
from sccg_teacher_student.features import Tap
from sccg_teacher_student.gauge import DetailGauge
from sccg_teacher_student.labels import LabelCache
from sccg_teacher_student.loop import Schedule, Trainer
from sccg_teacher_student.loss_weights import LossWeights
from sccg_teacher_student.losses import charbonnier, head_weight, sharpened
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.s2d import CLIP_MARGIN
from sccg_teacher_student.networks.spec import resnet_spec, s2d_spec, student_spec
from sccg_teacher_student.task import Part
from sccg_teacher_student.views import Base

ONLY = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)
TAPS = (Tap("model.10", "blocks.0"),)


@pytest.fixture
def cache(tmp_path: Path) -> LabelCache:
    made = LabelCache(tmp_path / "cache", bases(), 0)
    made.fill(lambda image: -image, limit_gib=1, views=32)
    return made


@pytest.fixture
def make_task(cache: LabelCache, tmp_path: Path) -> Any:
    def make(weights: dict[str, float], **options: Any) -> DistillTask:
        torch.manual_seed(0)
        teacher = load_checkpoint(save_teacher(tmp_path / "net.pth")).generator if weights.get("features") else None
        given: dict[str, Any] = {"batch": 4, "shift": 8, "device": torch.device("cpu"), "amp": None}
        given |= {"teacher": teacher, "taps": TAPS if teacher else ()}
        student = options.pop("student", None) or build_generator(s2d_spec(4, 1, plain=True))
        return DistillTask(student, cache, LossWeights(**ONLY | weights), **given | options)

    return make


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("part", [name for name in ONLY if name != "output"])
def test_each_part_alone_trains_the_student(make_task: Any, part: str) -> None:
    task = make_task({part: 2.0})
    losses = task.losses(draws())
    assert set(losses) == {"total", "output", part}
    assert float(losses[part].detach()) > 0
    assert float(losses["total"].detach()) == pytest.approx(2 * float(losses[part].detach()), rel=1e-5)
    losses["total"].backward()
    assert (
        sum(float(parameter.grad.abs().sum()) for parameter in task.network.parameters() if parameter.grad is not None)
        > 0
    )


def test_total_is_the_weighted_sum(make_task: Any) -> None:
    weights = {"output": 1.0, "wavelet": 0.7, "ssim": 0.1, "reference": 0.5}
    losses = {name: float(value.detach()) for name, value in make_task(weights).losses(draws()).items()}
    assert set(losses) == {"total", *weights}
    assert losses["total"] == pytest.approx(sum(weights[name] * losses[name] for name in weights), rel=1e-5)


DISTANCES = {"output": 1.0, "wavelet": 0.7, "ssim": 0.1}


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the task says, whatever other tests made of logging."""
    said: list[str] = []
    monkeypatch.setattr(distillation._log, "warning", lambda text, *values: said.append(text % values))
    return said


@pytest.fixture
def recursion_limit() -> Iterator[None]:
    """torch.compile raises Python's limit for good, which other tests would see."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def learned(task: DistillTask) -> tuple[dict[str, float], Tensor]:
    """Losses of a batch, and all gradients of the student in a row."""
    losses = task.losses(draws())
    losses["total"].backward()
    gradients = [parameter.grad.flatten() for parameter in task.network.parameters() if parameter.grad is not None]
    return {name: float(value.detach()) for name, value in losses.items()}, torch.cat(gradients)


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("recursion_limit")
@pytest.mark.parametrize(("amp", "tolerance"), [(None, 1e-3), (torch.bfloat16, 0.15)])
def test_compiled_the_losses_and_their_gradients_are_the_same(
    make_task: Any, amp: torch.dtype | None, tolerance: float, warned: list[str]
) -> None:
    torch.manual_seed(0)
    student = build_generator(student_spec("s2d-16x2-h8-nostd-in"))
    expected, theirs = learned(make_task(DISTANCES, student=copy.deepcopy(student)))
    task = make_task(DISTANCES, student=student, amp=amp)
    torch._dynamo.utils.counters.clear()
    task.compile()
    losses, gradients = learned(task)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "student and losses, and neither once more"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert not warned
    assert losses == pytest.approx(expected, rel=tolerance)
    assert (gradients - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("later", [False, True], ids=["student", "gradient"])
def test_where_compiling_fails_the_plain_student_learns_and_one_line_says_so(
    make_task: Any, monkeypatch: pytest.MonkeyPatch, warned: list[str], later: bool
) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            raise RuntimeError("no C++ compiler\nand much more")

    def broken(function: Any, **options: Any) -> Any:
        def call(*args: Any) -> Any:
            if not later:
                raise RuntimeError("no C++ compiler\nand much more")
            result = function(*args)
            return Broken.apply(result) if isinstance(result, Tensor) else result

        return call

    task, plain = (make_task(DISTANCES, student=build_generator(s2d_spec(4, 1))) for _ in range(2))
    plain.network.load_state_dict(task.network.state_dict())
    monkeypatch.setattr(torch, "compile", broken)
    task.compile()
    assert warned == ["training goes on without torch.compile, slower: RuntimeError: no C++ compiler and much more"]
    for name, value in plain.network.state_dict().items():
        assert torch.equal(task.network.state_dict()[name], value), name
    (losses, gradients), (expected, theirs) = learned(task), learned(plain)
    assert losses == expected
    assert torch.equal(gradients, theirs)


def test_a_folder_for_compiled_code_that_is_none_ends_no_run(
    make_task: Any, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise NotADirectoryError(20, "Not a directory", "cache/compiled")

    task = make_task(DISTANCES, student=build_generator(s2d_spec(4, 1)))
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    task.compile()
    assert len(warned) == 1
    assert warned[0].startswith("training goes on without torch.compile, slower: ")
    learned(task)


def test_reference_uses_only_views_that_have_one(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "unpaired", bases(paired=False), 0)
    cache.fill(lambda image: -image, limit_gib=1, views=16)
    options: dict[str, Any] = {"batch": 2, "shift": 0, "device": torch.device("cpu"), "amp": None}
    task = DistillTask(build_generator(s2d_spec(4, 1)), cache, LossWeights(reference=1.0), **options)
    losses = task.losses(draws())
    assert float(losses["reference"].detach()) == 0
    losses["total"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in task.network.parameters())


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_mean_gradient_of_the_parts_is_that_of_the_batch(tmp_path: Path, count: int) -> None:
    """Heads of other sizes, and views with and without a reference; of six parts, three score no SSIM."""
    small = [Base("small", str(number), lambda number=number: half_empty(number)) for number in range(3)]
    cache = LabelCache(tmp_path / "mixed", [*bases(), *small], 0)
    cache.fill(lambda image: -image, limit_gib=1, views=16)
    weights = LossWeights(ssim=0.5, reference=1.0)
    options: dict[str, Any] = {"batch": 6, "shift": 8, "device": torch.device("cpu"), "amp": None}
    found = []
    for parts in (1, count):
        torch.manual_seed(0)
        task = DistillTask(build_generator(resnet_spec(4, 1, "instance")), cache, weights, **options)
        losses = [task.losses(draws(), Part(0, index, parts)) for index in range(parts)]
        torch.autograd.backward(sum((one["total"] for one in losses), torch.zeros(())) / parts)
        gradients = [parameter.grad.flatten() for parameter in task.network.parameters() if parameter.grad is not None]
        found.append(torch.cat(gradients))
    assert (found[1] - found[0]).abs().max() <= 1e-5 * found[0].abs().max()


def half_empty(seed: int) -> tuple[FloatArray, None]:
    """A slice whose right half is air, without a reference."""
    image = picture(100 + seed)
    image[:, 24:] = -1
    return image, None


def test_a_batch_is_fixed_by_the_generator_and_moves_input_and_label_together(make_task: Any) -> None:
    task = make_task({"output": 1.0})
    first, second, other = task.draw(draws(3)), task.draw(draws(3)), task.draw(draws(4))
    for one, same in zip(first, second, strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(first[0], other[0])
    image, label, _ = first
    assert image.shape == (4, 1, 32, 48)
    assert torch.equal(label, -image)


def test_the_critic_learns_and_the_students_gradient_passes_through_it(make_task: Any) -> None:
    task = make_task({"adversarial": 1.0})
    before = {name: value.clone() for name, value in task.state()["critic"].items()}
    task.losses(draws())["total"].backward()
    after = task.state()["critic"]
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    assert task.network.tail.bias.grad.abs().sum() > 0


def test_feature_matching_trains_its_projections_and_not_the_teacher(make_task: Any) -> None:
    task = make_task({"features": 1.0})
    losses = task.losses(draws())
    losses["total"].backward()
    assert len(task.trainable()) == 2
    assert all(parameter.grad is not None for parameter in task.trainable())
    assert all(parameter.grad is None for parameter in task._teacher.parameters())


@pytest.mark.parametrize("part", ["output", "adversarial", "features"])
@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_mixed_precision_runs_a_step(make_task: Any, part: str, amp: torch.dtype) -> None:
    task = make_task({part: 1.0}, amp=amp)
    assert task.scaled == (amp is torch.float16)
    losses = task.losses(draws())
    assert losses["total"].dtype == torch.float32
    losses["total"].backward()
    assert torch.isfinite(losses["total"])


@pytest.mark.parametrize("missing", ["teacher", "taps"])
def test_features_need_a_teacher_and_taps(make_task: Any, missing: str) -> None:
    with pytest.raises(InputError, match="--feature-tap"):
        make_task({"features": 1.0}, **{missing: None if missing == "teacher" else ()})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e5])
def test_weights_out_of_range_are_refused_by_name(value: float) -> None:
    with pytest.raises(InputError, match="loss weight ssim"):
        LossWeights(ssim=value)


@pytest.mark.parametrize("part", ["adversarial", "features"])
def test_a_resumed_run_goes_on_with_critic_and_projections(make_task: Any, tmp_path: Path, part: str) -> None:
    def trainer(folder: str) -> Trainer:
        (tmp_path / folder).mkdir(exist_ok=True)
        schedule = Schedule(steps=4, seconds=None)
        return Trainer(make_task({"output": 1.0, part: 0.5}), schedule, 4, tmp_path / folder, {"spec": "x"}, 0)

    def stop(progress: Any) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    whole, first, second = trainer("whole"), trainer("parts"), trainer("parts")
    whole.run(lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        first.run(stop, every=1)
    second.restore()
    second.run(lambda _: None)
    for key, tensor in whole.task.network.state_dict().items():
        assert torch.equal(tensor, second.task.network.state_dict()[key]), key
    key = "critic" if part == "adversarial" else "match"
    for name, tensor in whole.task.state()[key].items():
        assert torch.equal(tensor, second.task.state()[key][name]), name


def test_training_lowers_the_loss(make_task: Any, tmp_path: Path) -> None:
    task = make_task({"output": 1.0})
    told: list[float] = []
    schedule = Schedule(steps=40, seconds=None, learning_rate=5e-3)
    Trainer(task, schedule, 4, tmp_path, {}, 0).run(lambda progress: told.append(progress.losses["total"]), every=10)
    assert told[-1] < 0.7 * told[0]


def test_saturated_labels_lie_in_the_margin_and_others_stay() -> None:
    label = torch.tensor([-1.0, -0.995, -0.5, 0.0, 0.98, 1.0])
    moved = beyond(label, 0.03)
    assert torch.allclose(moved, torch.tensor([-1.03, -1.025, -0.5, 0.0, 0.98, 1.03]))
    assert torch.equal(beyond(label, 0.0), label)


def test_only_students_that_clip_learn_with_a_margin(cache: LabelCache) -> None:
    options: dict[str, Any] = {"batch": 4, "shift": 0, "device": torch.device("cpu"), "amp": None}
    found = {}
    for name in ("s2d-4x1", "s2d-4x1-tanh", "resnet-4x1"):
        spec = student_spec(name)
        task = DistillTask(build_generator(spec), cache, LossWeights(**ONLY | {"output": 1.0}), **options)
        label = task.draw(draws())[1]
        task.network.forward = lambda image, label=label: label  # the teacher's own output
        found[name] = float(task.losses(draws())["total"])
    assert found.pop("s2d-4x1") > 0
    assert set(found.values()) == {0}


def test_in_the_second_half_labels_are_as_sharp_as_the_gauge_asks_for(make_task: Any) -> None:
    gauge = gauge_of_a_textured_case(every=1)
    task = make_task({"output": 1.0}, gauge=gauge)
    with torch.no_grad():
        task.network.tail.weight.zero_()  # a flat output: no detail at all
        task.network.tail.bias.zero_()
    early = task.losses(draws(), Part(share=0.49))
    assert gauge.steps == 0
    assert float(early["gauge_gain"]) == 1
    late = task.losses(draws(), Part(share=0.5))
    assert float(late["gauge_ratio"]) < 0.1
    assert float(late["gauge_gain"]) == gauge.largest
    _, label, _ = task.draw(draws())
    for losses, gain in ((early, 1.0), (late, gauge.largest)):
        wanted = sharpened(label, gain)
        weight = head_weight(-label, label)
        expected = charbonnier(torch.zeros_like(wanted), beyond(wanted, CLIP_MARGIN), weight / weight.mean())
        assert float(losses["output"].detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(late["output"].detach()) > float(early["output"].detach())
    assert task.network.training
    other = make_task({"output": 1.0}, gauge=gauge_of_a_textured_case(every=1))
    other.restore(task.state())
    assert other.state() == task.state()


def gauge_of_a_textured_case(**options: Any) -> DetailGauge:
    images = torch.stack([torch.from_numpy(picture(seed))[None] for seed in range(2)])
    return DetailGauge(images, -images, **options)
