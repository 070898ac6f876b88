"""The paper's PatchGAN discriminator (PAPER section "Networks")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sccg_teacher_student import parallel


class PatchDiscriminator(nn.Module):
    """4x4 convolutions 64-128-256 (stride 2), 512 (stride 1), then the score map; batch norm on all but the first.

    Slices (N, channels, H, W) in [-1, 1] -> scores (N, 1, H/8 - 2, W/8 - 2), unbounded; 1 stands for real. Parameter
    names are those of the CycleGAN repository's ``NLayerDiscriminator``.
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for stride, factor in ((2, 2), (2, 4), (1, 8)):
            layers += [
                nn.Conv2d(width * factor // 2, width * factor, 4, stride=stride, padding=1, bias=False),
                JointBatchNorm2d(width * factor),
                nn.LeakyReLU(0.2, True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 1, H/8 - 2, W/8 - 2)."""
        scores: Tensor = self.model(x)
        return scores


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of the slices of all processes (torch's SyncBatchNorm refuses CPUs)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, C, H, W) -> the same shape."""
        if not self.training or parallel.processes() == 1:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1]
        share = count / parallel.mean(torch.tensor(float(count), device=x.device))  # processes may have unlike many
        mean = parallel.mean(share * x.mean((0, 2, 3)))
        centred = x - mean[:, None, None]
        variance = parallel.mean(share * centred.square().mean((0, 2, 3)))
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            joint = count / share * parallel.processes()
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * joint / (joint - 1), momentum)
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)
