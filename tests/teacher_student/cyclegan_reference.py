"""Networks as the pytorch-CycleGAN-and-pix2pix repository builds them (models/networks.py), from scratch."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

NORMS: dict[str, Any] = {
    "instance": functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
    "instance-affine": functools.partial(nn.InstanceNorm2d, affine=True, track_running_stats=False),
    "instance-running": functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=True),
    "instance-affine-running": functools.partial(nn.InstanceNorm2d, affine=True, track_running_stats=True),
    "batch": functools.partial(nn.BatchNorm2d, affine=True, track_running_stats=True),
}


class ResnetBlock(nn.Module):
    def __init__(self, dim: int, padding_type: str, norm_layer: Any, use_dropout: bool, use_bias: bool) -> None:
        super().__init__()
        conv_block: list[nn.Module] = []
        p = 0
        if padding_type == "reflect":
            conv_block += [nn.ReflectionPad2d(1)]
        else:
            p = 1
        conv_block += [nn.Conv2d(dim, dim, kernel_size=3, padding=p, bias=use_bias), norm_layer(dim), nn.ReLU(True)]
        if use_dropout:
            conv_block += [nn.Dropout(0.5)]
        if padding_type == "reflect":
            conv_block += [nn.ReflectionPad2d(1)]
        conv_block += [nn.Conv2d(dim, dim, kernel_size=3, padding=p, bias=use_bias), norm_layer(dim)]
        self.conv_block = nn.Sequential(*conv_block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class ReferenceGenerator(nn.Module):
    def __init__(
        self,
        *,
        input_nc: int = 1,
        output_nc: int = 1,
        ngf: int = 4,
        norm: str = "instance",
        use_dropout: bool = False,
        n_blocks: int = 2,
        padding_type: str = "reflect",
        n_downsampling: int = 2,
    ) -> None:
        super().__init__()
        norm_layer, use_bias = NORMS[norm], norm != "batch"
        model: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_nc, ngf, kernel_size=7, padding=0, bias=use_bias),
            norm_layer(ngf),
            nn.ReLU(True),
        ]
        for i in range(n_downsampling):
            mult = 2**i
            model += [
                nn.Conv2d(ngf * mult, ngf * mult * 2, kernel_size=3, stride=2, padding=1, bias=use_bias),
                norm_layer(ngf * mult * 2),
                nn.ReLU(True),
            ]
        mult = 2**n_downsampling
        for _ in range(n_blocks):
            model += [ResnetBlock(ngf * mult, padding_type, norm_layer, use_dropout, use_bias)]
        for i in range(n_downsampling):
            mult = 2 ** (n_downsampling - i)
            model += [
                nn.ConvTranspose2d(
                    ngf * mult, ngf * mult // 2, kernel_size=3, stride=2, padding=1, output_padding=1, bias=use_bias
                ),
                norm_layer(ngf * mult // 2),
                nn.ReLU(True),
            ]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, kernel_size=7, padding=0), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class NLayerDiscriminator(nn.Module):
    """The 70x70 PatchGAN with batch norm."""

    def __init__(self, input_nc: int = 1, ndf: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        kw, padw = 4, 1
        sequence: list[nn.Module] = [nn.Conv2d(input_nc, ndf, kw, stride=2, padding=padw), nn.LeakyReLU(0.2, True)]
        nf_mult = 1
        for n in range(1, n_layers + 1):
            nf_mult_prev, nf_mult = nf_mult, min(2**n, 8)
            stride = 2 if n < n_layers else 1
            sequence += [
                nn.Conv2d(ndf * nf_mult_prev, ndf * nf_mult, kw, stride=stride, padding=padw, bias=False),
                nn.BatchNorm2d(ndf * nf_mult),
                nn.LeakyReLU(0.2, True),
            ]
        sequence += [nn.Conv2d(ndf * nf_mult, 1, kw, stride=1, padding=padw)]
        self.model = nn.Sequential(*sequence)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def reference(seed: int = 1, **options: Any) -> ReferenceGenerator:
    """A reference generator with weights and norm parameters far from their defaults, in evaluation mode.

    Instance norms in it normalise by the slice, as in the repository (whose loader drops their running statistics).
    """
    torch.manual_seed(seed)
    network = ReferenceGenerator(**options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.2)
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
            if module.track_running_stats:
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def by_slice(network: nn.Module) -> nn.Module:
    """Let instance norms ignore the running statistics that they carry."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return network
