"""The gauge measures as the bench does, and turns the gain the right way within its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from teacher_fakes import picture
from torch import Tensor, nn

from sccg_bench.highpass import energy_ratio, high_pass
from sccg_teacher_student.gauge import DetailGauge, keep_out
from sccg_teacher_student.views import Base


class Scaled(nn.Module):
    """Multiplies its input, so that its energy is known."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def slices() -> Tensor:
    return torch.stack([torch.from_numpy(picture(seed))[None] for seed in range(3)])


def case(name: str, count: int, *, synthetic: bool = False) -> list[Base]:
    return [Base(name, str(number), lambda: (picture(), None), synthetic) for number in range(count)]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3])
def test_ratio_is_the_energy_of_the_student_over_the_teacher(factor: float) -> None:
    gauge = DetailGauge(slices(), slices(), every=1)
    gauge.step(Scaled(factor), None)
    assert gauge.ratio == pytest.approx(factor**2, rel=1e-3)


def test_ratio_is_that_of_the_bench() -> None:
    images = slices()
    blur = nn.AvgPool2d(3, stride=1, padding=1)
    gauge = DetailGauge(images, images, every=1)
    gauge.step(blur, None)
    head = gauge._head.numpy()
    expected = [
        energy_ratio(high_pass(blur(image[None])[0, 0].numpy()), high_pass(image[0].numpy()), mask[0])
        for image, mask in zip(images, head, strict=True)
    ]
    assert gauge.ratio == pytest.approx(float(np.exp(np.mean(np.log(expected)))), rel=1e-2)


def test_the_first_measurement_asks_for_all_that_is_missing() -> None:
    gauge = DetailGauge(slices(), slices(), wanted=0.9)
    gauge.step(Scaled(0.8), None)
    assert gauge.gain == pytest.approx(0.9**0.5 / 0.8, rel=1e-3)


def test_gain_rises_for_a_blur_falls_for_noise_and_keeps_its_limits() -> None:
    gauge = DetailGauge(slices(), slices(), every=1)
    for _ in range(50):
        gauge.step(Scaled(0.5), None)
    assert gauge.gain == pytest.approx(gauge.largest)
    gauge.step(Scaled(1.2), None)
    assert 1 < gauge.gain < gauge.largest
    for _ in range(50):
        gauge.step(Scaled(1.2), None)
    assert gauge.gain == 1


def test_it_measures_at_first_and_then_every_so_many_steps() -> None:
    gauge = DetailGauge(slices(), slices(), every=3)
    gauge.step(Scaled(0.9), None)
    first = gauge.gain
    assert first > 1
    for _ in range(2):
        gauge.step(Scaled(0.7), None)
    assert gauge.gain == first
    gauge.step(Scaled(0.7), None)
    assert gauge.gain > first


def test_the_smallest_acquired_case_is_kept_out() -> None:
    bases = [*case("a", 9), *case("b", 7), *case("c", 8), *case("made", 6, synthetic=True), *case("few", 3)]
    learned, kept = keep_out(bases)
    assert {base.case for base in kept} == {"b"}
    assert len(kept) == 7
    assert {base.case for base in learned} == {"a", "c", "made", "few"}


def test_nothing_is_kept_out_of_few_cases() -> None:
    bases = [*case("a", 9), *case("b", 7), *case("c", 8)]
    assert keep_out(bases) == (bases, [])
    bases += [*case("d", 9, synthetic=True), *case("e", 9, synthetic=True)]
    assert keep_out(bases) == (bases, []), "three acquired ones are few, whatever a reverse teacher made"


def test_a_long_case_is_thinned() -> None:
    bases = [*case("a", 100), *case("b", 101), *case("c", 102), *case("d", 103)]
    assert len(keep_out(bases)[1]) == 12


def test_a_case_that_is_learned_from_under_another_name_as_well_is_not_kept_out() -> None:
    """A folder of ``--unpaired`` may hold the paired patients, too, scaled by another part of their series."""

    def patient(name: str, number: int, count: int, scale: float = 1.0) -> list[Base]:
        def load(seed: int) -> tuple[np.ndarray, None]:
            return (picture(seed) + 1) * np.float32(scale) - 1, None

        return [Base(name, str(place), lambda seed=100 * number + place: load(seed)) for place in range(count)]

    bases = [*patient("a", 1, 6), *patient("b", 2, 7), *patient("c", 3, 8), *patient("d", 4, 9)]
    copies = [*patient("more/x", 1, 7, 0.9), *patient("more/y", 2, 1, 0.9)]
    learned, kept = keep_out([*bases, *copies])
    assert {base.case for base in kept} == {"c"}
    assert len(learned) == 30 - 8 + 8
    assert {base.case for base in keep_out(bases)[1]} == {"a"}, "without copies, the smallest"
