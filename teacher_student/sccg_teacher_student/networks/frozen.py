"""A network that is used but does not learn."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call


def frozen(network: nn.Module, x: Tensor) -> Tensor:
    """``network(x)`` whose gradient reaches ``x`` but none of the weights; running statistics stay as they are."""
    tensors = {name: parameter.detach() for name, parameter in network.named_parameters()}
    tensors |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    output: Tensor = functional_call(network, tensors, x)
    return output
