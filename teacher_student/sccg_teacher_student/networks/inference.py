"""One slice through a generator in PyTorch, in full float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.precision import without_tf32


@torch.inference_mode()
def infer(generator: nn.Module, image: FloatArray) -> FloatArray:
    """(1, H, W) float32 in, the same out, on the generator's device; the generator is in evaluation mode."""
    given = torch.from_numpy(np.array(image))[None].to(next(generator.parameters()).device)
    with without_tf32():
        return np.array(generator(given)[0].float().cpu().numpy(), np.float32)
