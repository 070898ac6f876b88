"""Which layers of an INT8 engine do the harm: each one alone in eight bits, all others in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sccg_bench.quality import QualityResult

HARD_SLICES = 4


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one layer costs.

    Attributes
    ----------
    layer
        ONNX node name.
    alone_psnr_db
        PSNR in dB to the FP32 network (u8 scale, mean over the hardest slices) of an engine that computes only this
        layer in eight bits. The lower, the more harmful.
    """

    layer: str
    alone_psnr_db: float


def rank_layers(
    layers: Sequence[str], psnr_db: Callable[[tuple[str, ...]], float], say: Callable[[str], None]
) -> list[Sensitivity]:
    """Rank layers, most harmful first; one engine is built for each.

    Rounding errors of layers add up in power. A layer that is measured alone shows its own share; measured the other
    way round (alone in float, the rest in eight bits) all but the worst would drown in the worst one's noise.

    Parameters
    ----------
    layers
        ONNX node names of everything that may go back to float.
    psnr_db
        Given the layers that stay in float: PSNR in dB of such an engine to its FP32 network.
    say
        Told how far it is.
    """
    found = []
    for number, layer in enumerate(layers, start=1):
        value = psnr_db(tuple(other for other in layers if other != layer))
        say(f"sensitivity {number}/{len(layers)}: {layer} alone in int8: {value:.1f} dB")
        found.append(Sensitivity(layer, value))
    return sorted(found, key=lambda one: (one.alone_psnr_db, layers.index(one.layer)))


def hardest(result: QualityResult, count: int = HARD_SLICES) -> list[int]:
    """Indices of the slices on which an engine is farthest from its FP32 network, worst first."""
    scored = [
        (value, index)
        for index, scores in enumerate(result.slices)
        if (value := scores.engine_drift["engine_to_fp32_psnr_db"]) is not None
    ]
    return [index for _, index in sorted(scored)[:count]]
