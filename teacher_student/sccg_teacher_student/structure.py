"""Structural consistency (PAPER section "Loss"): input and output of a generator shall be alike in themselves.

A spatially-correlative (SC) row tells how similar the feature at a query position is to the features in a window
around it (after F-LSeSim: Zheng et al., CVPR 2021). MR and CT of one head look different, but their rows are alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_teacher_student.extractors import Extractor
from sccg_teacher_student.networks.frozen import frozen

QUERIES = 256
WINDOW = 64
REDUCTION = 4  # of VGG16's relu3_1, the finest map of the method; finer ones are averaged down to that resolution
TEMPERATURE = 0.1
PROJECTED = 64
TINY = 1e-12


def query_positions(size: tuple[int, int], generator: torch.Generator, count: int = QUERIES) -> Tensor:
    """``count`` different random positions (row, column) of a map of ``size``, (Q, 2) int64; all where it has fewer."""
    rows, columns = size
    chosen = torch.randperm(rows * columns, generator=generator)[:count]
    return torch.stack([chosen // columns, chosen % columns], dim=1)


def sc_rows(features: Tensor, positions: Tensor, window: int = WINDOW) -> Tensor:
    """Cosine of the features at ``positions`` with those of a window around each, the map's mean removed first.

    Parameters
    ----------
    features
        (N, C, H, W).
    positions
        (Q, 2): row and column.
    window
        Sides of the window in positions of the map; at the border it is moved inside, and where the map is smaller
        it is the whole map.

    Returns
    -------
    Tensor
        (N, Q, min(window, H) * min(window, W)) in [-1, 1], window row by row.
    """
    rows, columns = features.shape[-2:]
    unit = F.normalize(features - features.mean((2, 3), keepdim=True), dim=1).flatten(2)
    queries = unit[:, :, positions[:, 0] * columns + positions[:, 1]]
    cosines = queries.transpose(1, 2) @ unit
    height, width = min(window, rows), min(window, columns)
    if (height, width) == (rows, columns):
        return cosines
    top = (positions[:, 0] - height // 2).clamp(0, rows - height)
    left = (positions[:, 1] - width // 2).clamp(0, columns - width)
    down = top[:, None, None] + torch.arange(height, device=positions.device)[:, None]
    right = left[:, None, None] + torch.arange(width, device=positions.device)
    places = (down * columns + right).flatten(1)
    return cosines.gather(2, places.expand(len(features), -1, -1))


def structural_consistency(source: Tensor, output: Tensor) -> Tensor:
    """Mean of |1 - cos| between the SC rows of a generator's input and of its output, (N, Q, K) each; a scalar."""
    norms: Tensor = source.norm(dim=2) * output.norm(dim=2)
    return (1 - (source * output).sum(2) / norms.clamp(min=TINY)).abs().mean()


def info_nce(rows: Tensor, others: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross-entropy of finding each query's row among the rows of another view of the same slice (Oord et al. 2018).

    ``rows``, ``others``: (N, Q, K); the partner of ``rows[n, q]`` is ``others[n, q]``, the other queries of the slice
    are the negatives. A scalar.
    """
    norms = rows.norm(dim=2)[:, :, None] * others.norm(dim=2)[:, None]
    logits = rows @ others.transpose(1, 2) / norms.clamp(min=TINY) / temperature  # cosines, without scaling long rows
    wanted = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())


def intensity_view(image: Tensor, generator: torch.Generator) -> Tensor:
    """The same slices in other grey values: one gamma and one field of noise for all; (N, 1, H, W) in [-1, 1]."""
    gamma = torch.exp(torch.rand(1, generator=generator) - 0.5).to(image.device)
    noise = 0.05 * torch.randn(image.shape[1:], generator=generator).to(image.device)
    return (((image + 1) / 2).clamp(0, 1) ** gamma * 2 - 1 + noise).clamp(-1, 1)


class Structure(nn.Module):
    """SC losses on the three levels of an extractor, each behind a 1x1 convolution that learns by InfoNCE.

    The generator's term does not train the projections, and InfoNCE trains nothing else.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self._extract = extractor
        self.project = nn.ModuleList(nn.Conv2d(channels, PROJECTED, 1, bias=False) for channels in extractor.channels)

    def forward(self, image: Tensor, output: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(structural consistency, InfoNCE) of inputs and outputs (N, 1, H, W), means over the three levels."""
        with torch.no_grad():
            given, view = self._extract(image), self._extract(intensity_view(image, generator))
        made = self._extract(output)
        side = max(image.shape[2:]) // REDUCTION
        consistency, contrast = [], []
        with torch.autocast(image.device.type, enabled=False):
            for project, *maps in zip(self.project, given, view, made, strict=True):
                source, other, result = (_at_most(features.float(), side) for features in maps)
                positions = query_positions((source.shape[2], source.shape[3]), generator).to(source.device)
                learned = sc_rows(project(source), positions)
                shown = sc_rows(frozen(project, result), positions)
                consistency.append(structural_consistency(learned.detach(), shown))
                contrast.append(info_nce(learned, sc_rows(project(other), positions)))
        return torch.stack(consistency).mean(), torch.stack(contrast).mean()


def _at_most(features: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(features, math.ceil(max(features.shape[2:]) / side))
