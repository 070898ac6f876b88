"""``plan``: which student fits a latency budget on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from sccg_compress.verb_options import JsonOption, parse_size


def plan(
    budget_ms: Annotated[float, typer.Option(help="Largest p50 of one slice, single stream, in ms.")],
    target: Annotated[str, typer.Option(help="openvino or ort.")] = "openvino",
    size: Annotated[str, typer.Option(help="Size of the slices.")] = "512x512",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, whatever was measured before.")] = False,
    json_out: JsonOption = None,
) -> None:
    """Time INT8 students of every form, untrained, on this machine, and name the largest that fits the budget."""
    from sccg_compress.plan_command import show_plan

    show_plan(budget_ms, target=target, size=parse_size(size), fresh=fresh, json_out=json_out)
