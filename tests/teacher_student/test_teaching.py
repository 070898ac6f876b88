"""The teacher's task: which losses there are, whom they teach, and that parts make the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from teacher_fakes import bases, picture
from torch import Tensor, nn

from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import resnet_spec
from sccg_teacher_student.objective import pixel_translation, pixel_weights
from sccg_teacher_student.task import WHOLE, Part
from sccg_teacher_student.teaching import HybridWeights, TeacherTask
from sccg_teacher_student.teaching_slices import TeachingSlices
from sccg_teacher_student.views import Base

TINY = resnet_spec(4, 1, "instance")
ALL = HybridWeights()


def some_slices(count: int = 4, *, unpaired: int = 0, augment: bool = False) -> TeachingSlices:
    return TeachingSlices(bases(count), [("MR", base) for base in bases(unpaired, paired=False)], 0, augment)


def make_task(
    weights: HybridWeights = ALL,
    slices: TeachingSlices | None = None,
    directions: Iterable[Direction] = ("mr2ct",),
    batch: int = 2,
) -> TeacherTask:
    torch.manual_seed(0)
    generators: dict[Direction, nn.Module] = {direction: build_generator(TINY) for direction in directions}
    return TeacherTask(
        generators,
        slices or some_slices(),
        weights,
        batch=batch,
        features="mind",
        device=torch.device("cpu"),
        amp=None,
    )


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        (HybridWeights(adversarial=0, structure=0, uniform_pixels=True), {"pixel"}),
        (HybridWeights(structure=0, uniform_pixels=True), {"pixel", "adversarial", "discriminator"}),
        (HybridWeights(pixel=0, structure=0), {"adversarial", "discriminator"}),
        (ALL, {"pixel", "adversarial", "discriminator", "structure", "contrast"}),
    ],
)
def test_only_parts_with_a_weight_are_computed_and_summed(weights: HybridWeights, names: set[str]) -> None:
    task = make_task(weights)
    losses = {name: float(value.detach()) for name, value in task.losses(draws(), WHOLE).items()}
    assert set(losses) == names | {"total"}
    expected = sum(getattr(weights, name, 1.0) * losses[name] for name in names)
    assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_both_directions_add_cycle_consistency() -> None:
    losses = make_task(directions=("mr2ct", "ct2mr")).losses(draws(), WHOLE)
    assert {"mr2ct_cycle", "ct2mr_cycle", "mr2ct_pixel", "ct2mr_structure"} < set(losses)
    without = make_task(HybridWeights(cycle=0), directions=("mr2ct", "ct2mr")).losses(draws(), WHOLE)
    assert not any("cycle" in name for name in without)


def test_a_slice_comes_back_as_it_was_before_its_grey_values_changed() -> None:
    slices = some_slices(augment=True)
    task = make_task(slices=slices, directions=("mr2ct", "ct2mr"))
    found = float(task.losses(draws(), WHOLE)["mr2ct_cycle"].detach())
    batch = slices.draw(2, WHOLE)
    assert not torch.equal(batch.inputs["MR"], batch.targets["MR"])
    with torch.no_grad():
        back = task.network["ct2mr"](task.network["mr2ct"](batch.inputs["MR"]))
    assert found == pytest.approx(float((back - batch.targets["MR"]).abs().mean()), rel=1e-4)


def test_the_pixel_loss_is_weighted_by_the_discriminators_own_score() -> None:
    task = make_task(HybridWeights(structure=0))
    found = float(task.losses(draws(), WHOLE)["pixel"].detach())
    batch = task._slices.draw(2, WHOLE)
    with torch.no_grad():
        output = task.network["mr2ct"](batch.inputs["MR"])
        weights = pixel_weights(task.discriminators["mr2ct"](output), (32, 48))
    assert found == pytest.approx(float(pixel_translation(output, batch.targets["CT"], weights)), rel=1e-4)


def test_generator_and_discriminator_teach_only_themselves() -> None:
    task = make_task(HybridWeights(pixel=0, structure=0))
    losses, critic = task.losses(draws(), WHOLE), task.discriminators["mr2ct"]
    losses["adversarial"].backward(retain_graph=True)
    assert gradients(task.network)
    assert not gradients(critic)
    task.network.zero_grad()
    losses["discriminator"].backward()
    assert gradients(critic)
    assert not gradients(task.network)


def test_everything_that_learns_is_trained_saved_and_restored() -> None:
    task, other = make_task(), make_task()
    task.losses(draws(), WHOLE)["total"].backward()
    assert all(parameter.grad is not None for parameter in [*task.network.parameters(), *task.trainable()])
    with torch.no_grad():
        for parameter in task.trainable():
            parameter.add_(1.0)
    other.restore(task.state())
    for ours, theirs in zip(task.trainable(), other.trainable(), strict=True):
        assert torch.equal(ours, theirs)


def test_parts_of_a_batch_are_the_batch() -> None:
    slices = some_slices(5, augment=True)
    whole = slices.draw(4, Part(step=3))
    parts = [slices.draw(4, Part(3, index, 2)) for index in range(2)]
    assert whole.names == parts[0].names + parts[1].names
    for modality in ("MR", "CT"):
        assert torch.equal(whole.inputs[modality], torch.cat([part.inputs[modality] for part in parts]))


@pytest.mark.parametrize("mixed", [False, True])
def test_the_mean_gradient_of_the_parts_is_that_of_the_batch(mixed: bool) -> None:
    """Without a discriminator, whose batch norm sees the slices of a part only; also of 2 pairs here, 1 pair there."""
    weights = HybridWeights(adversarial=0, uniform_pixels=True)
    extra = bases(6, paired=False)
    slices = TeachingSlices(bases(4), [("MR", extra[0]), *(("CT", base) for base in extra[1:])], 0, False)
    found = []
    for count in (1, 2):
        task = make_task(weights, slices, ("mr2ct", "ct2mr"), batch=6) if mixed else make_task(weights, batch=4)
        for index in range(count):
            (task.losses(draws(), Part(0, index, count))["total"] / count).backward()
        found.append(
            gradients(task.network)
            | {str(n): one.grad for n, one in enumerate(task.trainable()) if one.grad is not None}
        )
    assert len(found[0]) == len(found[1]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_an_epoch_takes_every_pair_once_in_another_order() -> None:
    slices = some_slices(6)
    names = [name for step in range(4) for name in slices.draw(3, Part(step)).names]
    assert sorted(names[:6]) == sorted(names[6:]) == sorted(f"{base.case}/{base.slice}" for base in slices.pairs)
    assert names[:6] != names[6:]
    assert names != [name for step in range(4) for name in replace(slices, seed=1).draw(3, Part(step)).names]


def test_every_other_slice_is_unpaired_where_there_are_unpaired_ones() -> None:
    slices = some_slices(4, unpaired=3)
    batch = slices.draw(4, WHOLE)
    assert batch.there["MR"].tolist() == [True] * 4
    assert batch.there["CT"].tolist() == [True, False, True, False]
    assert slices.pairs_per_step(4) == 2
    slices.check_parts(4, 2)
    with pytest.raises(InputError, match="needs 2 slices: --batch 8"):
        slices.check_parts(4, 4)


def test_unpaired_slices_reach_all_losses_but_the_pixel_one() -> None:
    def spoiled(number: int) -> TeachingSlices:
        """The same pairs, and an unpaired MR that differs."""
        extra = Base("more", "0", lambda: (picture(100 + number), None))
        return TeachingSlices(bases(2), [("MR", extra)], 0, False)

    found = []
    for number in range(2):
        task = make_task(slices=spoiled(number), directions=("mr2ct", "ct2mr"))
        found.append({name: float(value.detach()) for name, value in task.losses(draws(), WHOLE).items()})
    changed = {name for name in found[0] if found[0][name] != pytest.approx(found[1][name], rel=1e-9)}
    assert {"mr2ct_structure", "mr2ct_cycle", "mr2ct_discriminator"} <= changed
    uniform = HybridWeights(uniform_pixels=True)
    pixel = []
    for number in range(2):
        task = make_task(uniform, slices=spoiled(number), directions=("mr2ct", "ct2mr"))
        pixel.append(float(task.losses(draws(), WHOLE)["mr2ct_pixel"].detach()))
    assert pixel[0] == pytest.approx(pixel[1], rel=1e-6)


def test_grey_values_change_on_input_mr_alone() -> None:
    batch = some_slices(4, augment=True).draw(4, WHOLE)
    assert torch.equal(batch.inputs["CT"], batch.targets["CT"])
    assert not torch.equal(batch.inputs["MR"], batch.targets["MR"])
    inside = np.s_[:, :, 12:-12, 16:-16]
    moved_alike = -batch.targets["MR"][inside] - batch.targets["CT"][inside]
    assert float(moved_alike.abs().max()) < 1e-5, "the fakes' CT is the negative MR"


def with_a_bad_slice(spoil: Callable[[FloatArray], FloatArray]) -> TeachingSlices:
    good = bases(3)
    bad = Base("case 7", "012", lambda: (spoil(picture(9)), picture(9)))
    return TeachingSlices([*good, bad], [], 0, False)


def test_a_loss_that_is_not_finite_names_the_slice() -> None:
    task = make_task(slices=with_a_bad_slice(lambda image: image * np.float32(np.nan)), batch=4)
    with pytest.raises(InputError, match=r"step 0: the loss is not finite .* with case 7/012; .*last\.pt") as caught:
        task.losses(draws(), WHOLE)
    assert "c0" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"pixel": -1.0}, "weight pixel"),
        ({"structure": float("nan")}, "weight structure"),
        ({"adversarial": 0.0}, "--uniform-pixels"),
        ({"adversarial": 0.0, "pixel": 0.0}, "nothing to learn"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HybridWeights(**weights)  # type: ignore[arg-type]
