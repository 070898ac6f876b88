"""What torch.compile makes faster it must not change, and where it fails training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sccg_teacher_student import precision
from sccg_teacher_student.precision import compiled


def halves(x: Tensor) -> Tensor:
    return x / 2


def test_where_compiling_fails_the_function_itself_runs_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    function = compiled(halves)
    with caplog.at_level(logging.WARNING):
        assert [float(function(torch.tensor(4.0))) for _ in range(2)] == [2.0, 2.0]
    assert [record.getMessage() for record in caplog.records] == [
        "training goes on without torch.compile, slower: RuntimeError: no C++ compiler"
    ]


@pytest.mark.parametrize(("computes", "chosen"), [(True, torch.bfloat16), (False, None)])
def test_auto_takes_bfloat16_where_the_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, computes: bool, chosen: torch.dtype | None
) -> None:
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: computes)
    assert precision.choose_amp("auto", torch.device("cpu")) is chosen
    assert precision.choose_amp("off", torch.device("cpu")) is None
    assert precision.choose_amp("bf16", torch.device("cpu")) is torch.bfloat16, "who asks for it gets it"


def test_an_error_after_the_first_call_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    calls = []

    def once(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return x

    function = compiled(once)
    function(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="out of memory"):
        function(torch.tensor(1.0))
    assert len(calls) == 2
