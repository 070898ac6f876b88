"""Which slices set the INT8 ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sccg_export.calibration import choose_calibration
from sccg_runtime.errors import InputError
from sccg_teacher_student.data.source import DataSource


def test_first_and_last_slices_of_cases_are_up_to_half_of_all(source: DataSource) -> None:
    cases = source.splits["train"]
    ends = {f"{case}/{name}" for case in cases for name in (source.slices(case)[0], source.slices(case)[-1])}
    chosen = choose_calibration(source, cases, "mr2ct", seed=3, count=2 * len(ends))
    assert ends < set(chosen.names)
    few = {seed: choose_calibration(source, cases, "mr2ct", seed=seed, count=len(ends)).names for seed in range(8)}
    assert {len(ends.intersection(names)) for names in few.values()} == {len(ends) // 2}
    assert len(set(few.values())) > 1


def test_the_rest_is_drawn_with_the_seed(source: DataSource) -> None:
    cases = source.splits["train"]
    count = 2 * len(cases) + 2
    picks = {seed: choose_calibration(source, cases, "mr2ct", seed=seed, count=count) for seed in range(8)}
    again = choose_calibration(source, cases, "mr2ct", seed=0, count=count)
    assert again.names == picks[0].names
    assert again.to_dict() == picks[0].to_dict()
    assert len({pick.names for pick in picks.values()}) > 1


def test_more_than_there_are_gives_all_once_with_names_in_order(source: DataSource) -> None:
    cases = source.splits["train"]
    chosen = choose_calibration(source, cases, "mr2ct", seed=0, count=1000)
    every = [f"{case}/{name}" for case in cases for name in source.slices(case)]
    assert list(chosen.names) == sorted(every)
    for name, image in zip(chosen.names, chosen.images, strict=True):
        case, number = name.split("/")
        np.testing.assert_array_equal(image, source.load(case, number).mr)


def test_the_other_direction_calibrates_with_ct(source: DataSource) -> None:
    chosen = choose_calibration(source, source.splits["train"][:1], "ct2mr", seed=0, count=1)
    case, number = chosen.names[0].split("/")
    np.testing.assert_array_equal(chosen.images[0], source.load(case, number).ct)


def test_what_is_recorded_is_count_seed_names_and_a_hash_of_the_pixels(source: DataSource) -> None:
    chosen = choose_calibration(source, source.splits["train"], "mr2ct", seed=7, count=4)
    told = chosen.to_dict()
    assert (told["slices"], told["seed"], told["names"]) == (4, 7, list(chosen.names))
    changed = [np.array(image) for image in chosen.images]
    changed[2][0, 5, 5] += 0.01
    assert replace(chosen, images=changed).to_dict()["sha256"] != told["sha256"]


def test_no_slice_is_an_error_that_names_the_data(source: DataSource) -> None:
    with pytest.raises(InputError, match="no slice to calibrate with"):
        choose_calibration(source, (), "mr2ct", seed=0)
