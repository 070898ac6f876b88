"""Networks that compute what they did before in float32, and something else in eight bits."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from small_models import fresh

from sccg_export.graph import Graph
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.networks.spec import student_spec

OUTLIER = 400.0


def with_outlier(checkpoint: Checkpoint, *blocks: int, factor: float = OUTLIER) -> Checkpoint:
    """One channel between the two convolutions of each block is ``factor`` times as large as before.

    The second convolution divides by it again, so nothing changes in float32; but its input has one range for all
    channels, and eight bits of it leave nothing of the others.
    """
    generator = copy.deepcopy(checkpoint.generator)
    parts = dict(generator.named_parameters())
    with torch.no_grad():
        for block in blocks:
            channel = int(parts[f"blocks.{block}.conv2.weight"].abs().sum((0, 2, 3)).argmax())
            for scaled in ("weight", "bias"):
                parts[f"blocks.{block}.norm1.{scaled}"][channel] *= factor
            parts[f"blocks.{block}.conv2.weight"][:, channel] /= factor
    return replace(checkpoint, generator=generator)


def with_saturating_pairs(checkpoint: Checkpoint) -> Checkpoint:
    """Bright maps under weights that are all alike: 255 * 127 + 255 * 127 does not fit 16 bits.

    The network is another one, without FiLM and norm; only record and hash are those of ``checkpoint``.
    """
    spec = replace(student_spec("s2d-16x2-plain"), norm="none")
    generator = fresh(spec)
    parts = dict(generator.named_parameters())
    with torch.no_grad():
        parts["stem.conv.bias"].fill_(3)
        for name, total in (("blocks.0.conv1", 1.0), ("blocks.0.conv2", 1.0), ("tail_in", 0.5)):
            weight = parts[f"{name}.weight"]
            weight.fill_(total / weight[0].numel())
        parts["tail.weight"].mul_(0.2)
    return replace(checkpoint, generator=generator, spec=spec)


def node_of(graph: Graph, weight: str) -> str:
    """Name of the ONNX node that reads a weight."""
    return next(str(node.name) for node in graph.model.graph.node if weight in node.input)
