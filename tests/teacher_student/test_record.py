"""A record summarises the slices that a network learned from, however many they are, without holding them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from teacher_fakes import picture

from sccg_teacher_student.data.source import DataSource, open_data
from sccg_teacher_student.distill import _spread
from sccg_teacher_student.record import TrainingRecord
from sccg_teacher_student.teaching_slices import TeachingSlices
from sccg_teacher_student.train import _record
from sccg_teacher_student.train_config import TrainConfig
from sccg_teacher_student.views import Base

CASES = ("a", "b"), ("d",)


@pytest.fixture
def source(pairs_folder: Path) -> DataSource:
    return open_data(pairs_folder)


def watched(count: int, living: Any) -> list[Base]:
    """Slices of which none is kept; the reference is the input upside down."""

    def load(number: int) -> Any:
        image = picture(number)
        return living.watch(image), living.watch(image[::-1].copy())

    return [Base("c", f"{number}", lambda number=number: load(number)) for number in range(count)]


@pytest.mark.parametrize("direction", ["mr2ct", "ct2mr"])
def test_a_teachers_record_is_of_all_its_pairs_and_holds_few_at_once(
    direction: Any, source: DataSource, living: Any
) -> None:
    config = TrainConfig(data=str(source.path), direction=direction)
    slices = TeachingSlices(watched(200, living), [], seed=0, augment=False)
    found = _record(config, source, slices, direction, CASES)
    assert living.most <= 6
    images = [picture(number)[:: 1 if direction == "mr2ct" else -1][None] for number in range(200)]
    assert found == TrainingRecord.of(source, direction, images, CASES)
    assert (found.input_statistics.slices, found.trained_size) == (200, (32, 48))


@pytest.mark.parametrize(("count", "taken"), [(5, 5), (128, 128), (255, 255), (300, 150)])
def test_a_students_record_is_of_a_spread_of_slices_and_holds_few_at_once(
    count: int, taken: int, source: DataSource, living: Any
) -> None:
    found = TrainingRecord.of(source, "mr2ct", _spread(watched(count, living), 128), CASES)
    assert found.input_statistics.slices == taken
    assert living.most <= 6
