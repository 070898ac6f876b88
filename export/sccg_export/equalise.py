"""Channels of a student's residual stream, brought nearer to one range: the widest says how coarse eight bits are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.s2d import S2DBlock, S2DGenerator

STRENGTH = 0.4
"""0 leaves ranges as they are, 1 makes them equal and leaves all differences to the weights, which are rounded, too.
docs/compression.md has what several gave.
"""
LIMIT = 8.0
"""Largest factor, and one over the smallest: what is nearly never used is not blown up."""
SLICES = 24


def equalise(network: nn.Module, images: Sequence[FloatArray]) -> bool:
    """Scale each channel that blocks add to by (typical range / own range) ** STRENGTH; the function stays the same.

    ReLU lets positive factors through: what writes to a channel is multiplied by its factor, what reads from it is
    divided (Nagel et al. 2019, here between residual blocks; the exponent as in SmoothQuant, Xiao et al. 2023). Where
    no norm stands before the sums (``-in1``), ranges lay up to 27 times apart; others gained nothing.

    Parameters
    ----------
    network
        Folded for export; changed in place. Other than an s2d student with ``norm_once``, no FiLM and no lower paths:
        left alone.
    images
        (1, H, W) in [-1, 1] each; ranges are means of the largest values over at most 24 of them.

    Returns
    -------
    Whether the network is of that form.
    """
    if not (isinstance(network, S2DGenerator) and network.norm_once and not network.films):
        return False
    if network.branch is not None or network.unet is not None:
        return False
    blocks = [cast(S2DBlock, block) for block in network.blocks]
    readers = [*(block.conv1 for block in blocks), cast(nn.Conv2d, network.tail_in)]
    factors = _factors(_ranges(network, readers, images))
    norm = cast(nn.InstanceNorm2d, network.stem_norm)
    norm.weight.mul_(factors)
    norm.bias.mul_(factors)
    for block in blocks:
        block.conv2.weight.mul_(factors.reshape(-1, 1, 1, 1))
        cast(Tensor, block.conv2.bias).mul_(factors)
    for reader in readers:
        inputs = factors.reshape(reader.groups, -1).repeat_interleave(reader.out_channels // reader.groups, dim=0)
        reader.weight.div_(inputs[:, :, None, None])
    return True


def _ranges(network: nn.Module, readers: Sequence[nn.Module], images: Sequence[FloatArray]) -> Tensor:
    """Largest value of each channel (C,), which ReLU kept from being negative, where the stream is widest."""
    seen: list[list[Tensor]] = [[] for _ in readers]
    hooks = [reader.register_forward_pre_hook(partial(_note, kept)) for reader, kept in zip(readers, seen, strict=True)]
    with torch.inference_mode():
        for image in images[:: -(-len(images) // SLICES)]:
            network(torch.from_numpy(np.array(image))[None])
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.stack(kept).mean(0) for kept in seen]).amax(0)


def _note(kept: list[Tensor], _: nn.Module, inputs: tuple[Tensor]) -> None:
    kept.append(inputs[0].amax((0, 2, 3)))


def _factors(ranges: Tensor) -> Tensor:
    """A channel that is zero everywhere stays as it is."""
    known = torch.where(ranges > 0, ranges, torch.nan).log()
    return ((known.nanmedian() - known) * STRENGTH).exp().nan_to_num(1.0).clamp(1 / LIMIT, LIMIT)
