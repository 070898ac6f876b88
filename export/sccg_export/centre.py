"""Convolutions ahead of instance norm, given the bias that bfloat16 keeps most digits behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from sccg_runtime.intensity import FloatArray

SLICES = 24
_Convolution = nn.Conv2d | nn.ConvTranspose2d


def centre(network: nn.Module, images: Sequence[FloatArray]) -> None:
    """Take from each channel that an instance norm reads its mean over slices; the function stays the same.

    The norm takes every slice's own mean away again, so what stands in the bias is free, as long as the norm alone
    reads what the convolution gives, as in all networks here. What lies between the two is rounded to eight
    significant bits where an engine computes in bfloat16, and a channel's contrast may be small against its mean:
    behind a stem, a fifth of it in a slice that is nearly black.

    Parameters
    ----------
    network
        Folded for export; changed in place.
    images
        (1, H, W) in [-1, 1] each; at most 24 are used.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]
    if not norms:
        return
    last: tuple[_Convolution, Tensor] | None = None
    means: dict[_Convolution, list[Tensor]] = {}

    def keep(convolution: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        nonlocal last
        last = cast(_Convolution, convolution), output

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if last is not None and inputs[0] is last[1]:
            means.setdefault(last[0], []).append(inputs[0].mean((0, 2, 3)))

    hooks = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, _Convolution)]
    hooks += [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.inference_mode():
        for image in images[:: -(-len(images) // SLICES)]:
            network(torch.from_numpy(np.array(image))[None])
    for hook in hooks:
        hook.remove()
    for convolution, found in means.items():
        mean = torch.stack(found).mean(0).clone()  # inference mode's tensors cannot be parameters
        bias = -mean if convolution.bias is None else convolution.bias - mean
        convolution.bias = nn.Parameter(bias, requires_grad=False)
