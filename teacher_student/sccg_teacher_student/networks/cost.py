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
    with torch.device("meta"):
        return _counted(build_generator(spec), spec, size)


def capacity_gmac(spec: GeneratorSpec, size: tuple[int, int]) -> float:
    """The same as if convolutions in groups of several channels saw all. Depthwise ones count as they are.

    For ``mr2ct``, students come as near as it is large; for ``ct2mr``, groups lose more than it says
    ("Convolutions in groups" in docs/compression.md).
    """
    with torch.device("meta"):
        network = build_generator(spec)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and 1 < module.groups < module.in_channels:
                module.weight = nn.Parameter(module.weight.repeat(1, module.groups, 1, 1))
                module.groups = 1
        return _counted(network, spec, size)


def _counted(network: nn.Module, spec: GeneratorSpec, size: tuple[int, int]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, spec.in_channels, *size))
    return float(counter.get_total_flops()) / 2e9
