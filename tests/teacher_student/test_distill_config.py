"""What a distillation's configuration refuses, and its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sccg_runtime.errors import InputError
from sccg_teacher_student.distill_config import DistillConfig
from sccg_teacher_student.features import Tap
from sccg_teacher_student.loss_weights import LossWeights


@pytest.fixture
def config() -> DistillConfig:
    return DistillConfig(teacher="t.pth", direction="mr2ct", data="pairs", minutes=None, steps=6, views=8, batch=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": None},
        {"minutes": 3.0},
        {"steps": 0},
        {"steps": None, "minutes": 0.0},
        {"steps": None, "minutes": -1.0},
        {"steps": None, "minutes": float("nan")},
        {"steps": None, "minutes": float("inf")},
        {"batch": 0},
        {"views": 0},
        {"cache_gib": 0.0},
        {"cache_gib": float("nan")},
        {"learning_rate": -1e-3},
        {"learning_rate": float("nan")},
        {"weight_decay": -0.1},
        {"weight_decay": 1.0},
        {"weight_decay": float("nan")},
        {"seed": -1},
        {"seed": 2**63},
        {"taps": (Tap("a", "b"),)},
        {"losses": LossWeights(features=1.0)},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(config: DistillConfig, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(config, **changes)


def test_config_survives_json(config: DistillConfig) -> None:
    chosen = replace(
        config, unpaired=("a", "b"), taps=(Tap("x", "y"),), losses=LossWeights(features=2.0), steps=None, minutes=2.5
    )
    assert DistillConfig.from_json(chosen.to_json()) == chosen


def test_a_config_of_before_weight_decay_was_kept_is_read(config: DistillConfig) -> None:
    values = json.loads(config.to_json())
    del values["weight_decay"]
    assert DistillConfig.from_json(json.dumps(values)) == config


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:50],
        lambda text: "[]",
        lambda text: "3",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"t.pth"', "null"),
        lambda text: text.replace('"batch": 2', '"batch": "2"'),
        lambda text: text.replace('"batch"', '"bach"'),
        lambda text: text.replace('"wavelet"', '"wave"'),
        lambda text: text.replace('"mr2ct"', '"mr2pet"'),
        lambda text: text.replace('"taps": []', '"taps": [{"teacher": "a"}]'),
        lambda text: text.replace('"unpaired": []', '"unpaired": null'),
        lambda text: text.replace('"steps": 6', '"steps": -6'),
    ],
)
def test_a_damaged_config_is_refused(config: DistillConfig, change: Any) -> None:
    changed = change(config.to_json())
    assert changed != config.to_json()
    with pytest.raises(InputError) as caught:
        DistillConfig.from_json(changed)
    assert "\n" not in str(caught.value)
