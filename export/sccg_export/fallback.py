"""What happens to an INT8 engine over its budget: its most harmful layers go back to float, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sccg_bench.latency import LatencyPlan, take_turns, time_block, warm_up
from sccg_export.sensitivity import Sensitivity, hardest, rank_layers
from sccg_export.workshop import Engine, Workshop
from sccg_runtime.engine import Session
from sccg_runtime.intensity import FloatArray

MAX_PUT_BACK = 12
QUICK_PLAN = LatencyPlan(queries=32, seconds=1.0, warmup_queries=5, warmup_seconds=0.3, block_seconds=0.25)
"""For figures that stand beside the export: what went back to float costs, what an old CPU takes."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """A layer that went back to float.

    Attributes
    ----------
    layer
        ONNX node name.
    alone_psnr_db
        See :class:`sccg_export.sensitivity.Sensitivity`.
    gain_db
        Mean PSNR to the FP32 network on all held-out slices with this layer and those before it in float, minus that
        without this one, in dB.
    psnr_db
        The former of the two, in dB.
    """

    layer: str
    alone_psnr_db: float
    gain_db: float
    psnr_db: float


@dataclass(frozen=True, slots=True)
class Fallback:
    """The engine that the gate let through, or the last one that it refused.

    Attributes
    ----------
    engine
        With ``layers`` in float.
    layers
        In the order in which they went back.
    ranking
        Of all layers that were measured, most harmful first.
    """

    engine: Engine
    layers: tuple[PutBack, ...]
    ranking: tuple[Sensitivity, ...]


def nothing_against(engine: Engine) -> str | None:
    """Let an engine pass."""
    return None


def fall_back(
    workshop: Workshop,
    refused: Engine,
    say: Callable[[str], None],
    *,
    also: Callable[[Engine], str | None] = nothing_against,
) -> Fallback:
    """Put layers back to float, most harmful first, and ask the whole gate after each, until the engine passes.

    At most 12 layers go back, and one always stays in eight bits: beyond that, a float engine is the honest answer.

    Parameters
    ----------
    workshop
        Of this export.
    refused
        The engine with all layers in eight bits that the gate refused.
    say
        Told every step.
    also
        Asked of every engine that passes the gate here; says why not, or None.
    """
    layers = refused.built.int8_layers
    hard = hardest(refused.quality)
    say(f"not yet: {refused.refused}: ranking {len(layers)} int8 layers on {len(hard)} hard slices")
    ranking = rank_layers(layers, lambda kept: workshop.quick_psnr_db(kept, hard), say)
    engine = refused
    put_back: list[PutBack] = []
    for sensitivity in ranking[: min(MAX_PUT_BACK, len(ranking) - 1)]:
        kept = (*(one.layer for one in put_back), sensitivity.layer)
        before, engine = engine, workshop.engine(kept)
        if engine.refused is None:
            engine = replace(engine, refused=also(engine))
        gain = engine.psnr_db - before.psnr_db
        put_back.append(PutBack(sensitivity.layer, sensitivity.alone_psnr_db, gain, engine.psnr_db))
        verdict = "within budget" if engine.refused is None else "still over budget"
        say(f"{sensitivity.layer} back in float: {gain:+.2f} dB, {engine.psnr_db:.1f} dB: {verdict}")
        if engine.refused is None:
            break
    return Fallback(engine, tuple(put_back), tuple(ranking))


def put_back_figures(fallback: Fallback, before: Engine, image: FloatArray) -> dict[str, Any]:
    """What went back, in which order, what each gained, and what all together cost; for contract and ``drift.json``.

    The cost is None where the engine itself cannot be run here.

    Parameters
    ----------
    fallback
        What :func:`fall_back` gave.
    before
        The engine with all layers in eight bits.
    image
        A slice (1, H, W) of the engine's size, to take times with.
    """
    runs_here = before.built.measured_on == "engine"
    return {
        "layers": [asdict(one) for one in fallback.layers],
        "ranking": [asdict(one) for one in fallback.ranking],
        "without": {"psnr_db": before.psnr_db, "refused": before.refused},
        "cost": cost_ms(before.session, fallback.engine.session, image) if runs_here else None,
    }


def cost_ms(without: Session, with_float: Session, image: FloatArray) -> dict[str, Any]:
    """p50 in ms of two engines that took turns in this process, on the same slice."""
    calls = {"without": partial(without, image), "with": partial(with_float, image)}
    slow = {name: warm_up(call, QUICK_PLAN) for name, call in calls.items()}
    blocks = {name: partial(time_block, call, QUICK_PLAN) for name, call in calls.items()}
    found = take_turns(blocks, slow, QUICK_PLAN)
    return {
        "size": list(image.shape[1:]),
        "threads": with_float.description.threads,
        "without_p50_ms": found["without"].p50,
        "with_p50_ms": found["with"].p50,
        "extra_p50_ms": found["with"].p50 - found["without"].p50,
        "n": [found["without"].n, found["with"].n],
    }
