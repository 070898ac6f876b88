"""What a change is worth: seed by seed, against the same seed, with a verdict only where all seeds agree."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sccg_bench.report.gains import gains_table
from sccg_bench.results import Results, Row
from sccg_runtime.errors import InputError


def study(near: Mapping[str, tuple[float, float | None]]) -> Results:
    """Run -> dB of its network and of its engine, if it has one."""
    rows = [Row(name="teacher", role="teacher", engine="torch"), Row(name="blurred", role="control")]
    for run, (network, engine) in near.items():
        rows.append(Row(name=f"student, PyTorch, {run}", engine="torch", drift={"to_teacher_psnr_head_db": network}))
        if engine is not None:
            rows.append(Row(name=f"int8, {run}", engine="openvino", drift={"to_teacher_psnr_head_db": engine}))
    return Results(machine={}, provenance={}, direction="mr2ct", rows=tuple(rows))


STUDY = study(
    {
        "better-seed1": (29.4, 29.0),
        "better-seed0": (28.4, 28.3),
        "base-seed0": (28.0, 27.9),
        "base-seed1": (29.0, 28.8),
        "mixed-seed0": (29.0, 28.9),
        "mixed-seed1": (29.1, None),
        "worse-seed0": (27.0, 26.0),
        "worse-seed1": (28.6, 27.0),
        "alone-seed0": (27.0, None),
        "late-seed0": (27.0, None),
        "late-seed1": (27.0, 20.5),
        "other-seed7": (99.0, None),
    }
)


def test_gains_are_over_the_same_seed() -> None:
    table = gains_table(STUDY, "base")
    assert table.lines[0] == ("base", "0, 1", "28.00, 29.00", "–", "27.90, 28.80", "–", "–")
    lines = {line[0]: line[1:] for line in table.lines}
    assert lines["better"] == ("0, 1", "28.40, 29.40", "+0.40, +0.40", "28.30, 29.00", "+0.40, +0.20", "gains")
    assert lines["mixed"] == ("0, 1", "29.00, 29.10", "+1.00, +0.10", "28.90, –", "+1.00, –", "neither")
    assert lines["worse"][2] == "−1.00, −0.40"
    assert lines["worse"][-1] == "loses"
    assert lines["late"][3:5] == ("–, 20.50", "–, −8.30"), "whose seed a figure is, can be told"
    assert lines["alone"][1:] == ("27.00", "−1.00", "–", "–", "–"), "one seed is no verdict"
    assert lines["other"] == ("7", "99.00", "–", "–", "–", "–"), "no row of that seed to hold it against"
    assert list(lines) == ["base", "alone", "better", "late", "mixed", "other", "worse"]


def test_engines_of_one_kind_are_held_side_by_side() -> None:
    rows = list(study({"base-seed0": (28.0, 27.9), "better-seed0": (28.5, 28.4)}).rows)
    rows.append(Row(name="int8, better-seed0", engine="onnxruntime", drift={"to_teacher_psnr_head_db": 27.0}))
    for order in (rows, rows[::-1]):
        table = gains_table(Results(machine={}, provenance={}, direction="mr2ct", rows=tuple(order)), "base")
        assert table.lines[1] == ("better", "0", "28.50", "+0.50", "28.40", "+0.50", "–")


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no row is called bse; there are alone, base, better"):
        gains_table(STUDY, "bse")
    with pytest.raises(InputError, match="there are none"):
        gains_table(study({}), "base")
