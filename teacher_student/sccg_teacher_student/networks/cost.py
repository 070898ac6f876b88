"""What a network costs, counted and not timed: parameters, and multiply-adds of one slice."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.spec import GeneratorSpec


def parameters(network: nn.Module) -> int:
    """Numbers that the network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def gmac(spec: GeneratorSpec, size: tuple[int, int]) -> float:
    """10^9 multiply-adds of convolutions for one slice of ``size`` (rows, columns); transposed ones by input size.

    Nothing is computed: the network lives on PyTorch's meta device.
    """
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        build_generator(spec).eval()(torch.empty(1, spec.in_channels, *size))
    return float(counter.get_total_flops()) / 2e9
