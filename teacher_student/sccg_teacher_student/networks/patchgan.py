"""The paper's PatchGAN discriminator (PAPER section "Networks")."""

from __future__ import annotations

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """4x4 convolutions 64-128-256 (stride 2), 512 (stride 1), then the score map; batch norm on all but the first.

    Slices (N, channels, H, W) in [-1, 1] -> scores (N, 1, H/8 - 2, W/8 - 2), unbounded; 1 stands for real.
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for stride, factor in ((2, 2), (2, 4), (1, 8)):
            layers += [
                nn.Conv2d(width * factor // 2, width * factor, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width * factor),
                nn.LeakyReLU(0.2, True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 1, H/8 - 2, W/8 - 2)."""
        scores: Tensor = self.model(x)
        return scores
