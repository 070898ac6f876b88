"""The loop stops and goes on exactly, keeps the last good state, and follows its schedule."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sccg_runtime.errors import CheckpointError, InputError
from sccg_teacher_student.loop import Progress, Schedule, Trainer
from sccg_teacher_student.precision import choose_amp, choose_device
from sccg_teacher_student.task import Part


class Regression:
    """A task with batch norm (buffers), something that learns beside the network, and random batches."""

    def __init__(self, at_step: Callable[[int], None] = lambda step: None) -> None:
        torch.manual_seed(1)
        self.network: nn.Module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
        self.beside = nn.Parameter(torch.zeros(()))
        self.calls = 0
        self.scaled = False
        self.spoil: Callable[[int, Tensor], Tensor] = lambda step, loss: loss
        self.at_step = at_step

    def losses(self, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        image = torch.randn(2, 1, 8, 8, generator=generator)
        self.at_step(self.calls)
        loss = ((self.network(image) - image.flip(3) + self.beside) ** 2).mean()
        loss = self.spoil(self.calls, loss)
        self.calls += 1
        return {"total": loss, "half": loss / 2}

    def trainable(self) -> list[nn.Parameter]:
        return [self.beside]

    def state(self) -> dict[str, Any]:
        return {"beside": self.beside.detach().clone()}

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.beside.copy_(state["beside"])


def trainer(folder: Path, task: Regression | None = None, seed: int = 0, **schedule: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    chosen = Schedule(**({"steps": 10, "seconds": None} | schedule))
    return Trainer(task or Regression(), chosen, 2, folder, {"spec": "the spec", "record": "the record"}, seed)


def silent(_: Progress) -> None:
    """Report nothing."""


def interrupt_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def ctrl_c() -> None:
    """What Python does on Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def weights(run: Trainer) -> dict[str, Tensor]:
    states = {"network": run.task.network, "average": run.average.module}
    tensors = {
        f"{name}.{key}": tensor for name, network in states.items() for key, tensor in network.state_dict().items()
    }
    return tensors | {"beside": run.task.state()["beside"], "random": run.generator.get_state()}


def assert_same(first: Trainer, second: Trainer) -> None:
    for key, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[key]), key


def test_an_interrupted_and_resumed_run_ends_with_exactly_the_same_weights(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run(silent)
    first = trainer(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupt_at(5), every=1)
    assert first.step == 5
    second = trainer(tmp_path / "parts")
    second.restore()
    assert_same(first, second)
    second.run(silent)
    assert second.step == 10
    assert_same(whole, second)
    assert not torch.equal(weights(first)["network.0.weight"], weights(second)["network.0.weight"])


def test_other_seeds_see_other_batches(tmp_path: Path) -> None:
    runs = [trainer(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for run in runs:
        run.run(silent)
    assert not torch.equal(weights(runs[0])["network.0.weight"], weights(runs[1])["network.0.weight"])


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path: Path) -> None:
    def at_step(step: int) -> None:
        if step == 4:
            ctrl_c()

    before = signal.getsignal(signal.SIGINT)
    run = trainer(tmp_path / "parts", Regression(at_step))
    with pytest.raises(KeyboardInterrupt):
        run.run(silent)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.step == 5
    resumed, whole = trainer(tmp_path / "parts"), trainer(tmp_path / "whole")
    resumed.restore()
    resumed.run(silent)
    whole.run(silent)
    assert_same(whole, resumed)


def test_a_second_ctrl_c_stops_at_once_and_does_not_save_half_a_step(tmp_path: Path) -> None:
    def at_step(step: int) -> None:
        if step == 4:
            ctrl_c()
            ctrl_c()

    run = trainer(tmp_path, Regression(at_step))
    with pytest.raises(KeyboardInterrupt):
        run.run(silent)
    assert run.step == 4
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 0, "that of the start"


def test_nothing_is_validated_that_a_killed_run_could_lose(tmp_path: Path) -> None:
    steps = []

    def validate(step: int) -> None:
        steps.append((step, torch.load(tmp_path / "last.pt", weights_only=True)["step"]))

    trainer(tmp_path).run(silent, validate=validate, validate_every=4)
    assert steps == [(4, 4), (8, 8), (10, 10)]


@pytest.mark.parametrize("what", ["loss", "gradient", "gradient beside the network"])
def test_a_run_that_diverges_keeps_the_last_good_checkpoint(tmp_path: Path, what: str) -> None:
    task = Regression()

    def spoil(step: int, loss: Tensor) -> Tensor:
        if step < 6:
            return loss
        if what == "loss":
            return loss * torch.nan
        rooted = loss if what == "gradient" else task.beside
        return loss + torch.sqrt(rooted - rooted.detach())

    task.spoil = spoil
    run = trainer(tmp_path, task)
    with pytest.raises(InputError, match=rf"step 6: the {what.split()[0]} is not finite.*lower the learning rate"):
        run.run(silent, save_seconds=-1)
    again = trainer(tmp_path)
    again.restore()
    assert again.step == 6
    assert all(torch.isfinite(tensor).all() for tensor in weights(again).values())


def test_the_average_is_the_exponential_mean_with_a_rising_decay(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=8, average_decay=0.35)
    seen: list[Tensor] = []
    run.run(lambda _: seen.append(run.task.network.state_dict()["0.weight"].clone()), every=1)
    expected = seen[0]
    for count, weight in enumerate(seen[1:], start=1):
        decay = min(0.35, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * weight
    averaged = run.averaged()
    torch.testing.assert_close(averaged.state_dict()["0.weight"], expected)
    assert not averaged.training
    assert int(averaged.state_dict()["1.num_batches_tracked"]) == 8


def test_what_learns_beside_the_network_is_trained(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(silent)
    assert float(run.task.state()["beside"]) != 0


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    schedule = Schedule(steps=100, seconds=None, learning_rate=1.0)
    rates = [schedule.rate(share / 1000) for share in range(1001)]
    peak = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.01)
    assert peak == 50
    assert rates[peak] == pytest.approx(1.0)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[525] == pytest.approx(0.505)
    assert rates[-1] == pytest.approx(0.01)
    assert schedule.rate(2.0) == pytest.approx(0.01)


def test_a_run_needs_either_steps_or_seconds(tmp_path: Path) -> None:
    for steps, seconds in ((None, None), (3, 3.0)):
        with pytest.raises(InputError, match="either"):
            trainer(tmp_path, steps=steps, seconds=seconds)


def test_a_timed_run_ends_and_keeps_its_time_over_a_resume(tmp_path: Path) -> None:
    first = trainer(tmp_path, steps=None, seconds=0.4)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        first.run(lambda progress: (_ for _ in ()).throw(KeyboardInterrupt) if progress.share > 0.5 else None, every=1)
    second = trainer(tmp_path, steps=None, seconds=1000.0)
    second.restore()
    assert second.schedule == first.schedule, "a resumed run goes on with the schedule that it began with"
    second.run(silent)
    assert second.share == 1
    assert second.seconds == pytest.approx(0.4, abs=0.3)
    assert time.monotonic() - started < 30


def test_progress_and_log_tell_means_and_the_way(tmp_path: Path) -> None:
    told: list[Progress] = []
    trainer(tmp_path).run(told.append, every=4)
    assert [(one.step, one.slices) for one in told] == [(4, 8), (8, 16), (10, 20)]
    assert [one.share for one in told] == pytest.approx([0.4, 0.8, 1.0])
    assert all(one.losses["half"] == pytest.approx(one.losses["total"] / 2) for one in told)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8, 10]
    assert [float(row["total"]) for row in rows] == pytest.approx([one.losses["total"] for one in told], rel=1e-5)


def test_a_resumed_run_goes_on_in_the_same_log(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).run(interrupt_at(4), every=2)
    again = trainer(tmp_path)
    again.restore()
    again.run(silent, every=2)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2", "4", "6", "8", "10"]


def test_what_a_killed_run_logged_after_its_last_save_is_logged_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).run(interrupt_at(4), every=2)
    log = tmp_path / "log.csv"
    saved = log.read_bytes()
    log.write_bytes(saved + saved.splitlines(keepends=True)[-1].replace(b"4,", b"6,", 1) + b"?\r\n2")
    again = trainer(tmp_path)
    again.restore()
    assert log.read_bytes() == saved
    again.run(silent, every=2)
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == ["step", "2", "4", "6", "8", "10"]


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    run, again = trainer(tmp_path), trainer(tmp_path)
    run.run(silent)
    again.restore()
    again.run(silent)
    assert again.step == 10
    assert_same(run, again)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        torch.save({key: value for key, value in (content | changes).items() if value is not None}, path)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "has no last.pt"),
        (damaged, "truncated"),
        (lambda path: torch.save([1], path), "not a training checkpoint"),
        (rewritten(schema="sccg-run/9"), "not a training checkpoint"),
        (rewritten(spec="other"), "another run: its spec"),
        (rewritten(record="other teacher or data"), "another run: its record"),
        (rewritten(optimizer=None), "does not fit this run"),
        (rewritten(network={}), "does not fit this run"),
        (rewritten(beside={}), "does not fit this run"),
        (rewritten(schedule="{"), "does not fit this run"),
        (rewritten(step="three"), "does not fit this run"),
    ],
)
def test_a_checkpoint_that_does_not_belong_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    trainer(tmp_path, steps=2).run(silent)
    change(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=words) as caught:
        trainer(tmp_path, steps=2).restore()
    assert "\n" not in str(caught.value)


def test_saving_leaves_one_whole_file(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=2)
    run.run(silent)
    before = (tmp_path / "last.pt").read_bytes()
    run.task.state = lambda: {"bad": lambda: None}  # type: ignore[method-assign]
    with pytest.raises(Exception, match=r"(?i)pickle"):
        run.save()
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "log.csv"]


def test_devices_are_chosen_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="--device cuda: PyTorch sees no CUDA"):
        choose_device("cuda")
    with pytest.raises(InputError, match="'gpu' is none of"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def scaled_task(spoil: Callable[[int, Tensor], Tensor] | None = None) -> Regression:
    task = Regression()
    task.scaled = True
    task.spoil = spoil or task.spoil
    return task


def test_loss_scaling_does_not_change_what_is_learned(tmp_path: Path) -> None:
    plain, scaled = trainer(tmp_path / "plain"), trainer(tmp_path / "scaled", scaled_task())
    for run in (plain, scaled):
        run.run(silent)
    assert scaled.scaler.get_scale() > 1
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(scaled)[name], atol=1e-5), name


def test_an_overflow_of_the_scaled_gradient_leaves_out_the_step_and_halves_the_scale(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", scaled_task(lambda step, loss: loss * 1e35), steps=1)
    before = [parameter.detach().clone() for parameter in run.task.network.parameters()]
    scale = run.scaler.get_scale()
    run.run(silent)
    assert run.scaler.get_scale() == scale / 2
    for old, new in zip(before, run.task.network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_scale_is_resumed(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", scaled_task(lambda step, loss: loss * 1e35 if step == 0 else loss))
    with pytest.raises(KeyboardInterrupt):
        run.run(interrupt_at(3), every=1)
    again = trainer(tmp_path / "run", scaled_task())
    again.restore()
    assert again.scaler.state_dict() == run.scaler.state_dict()


def test_a_card_that_only_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_amp("auto", torch.device("cuda")) is None
