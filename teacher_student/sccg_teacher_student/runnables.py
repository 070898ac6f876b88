"""Networks in PyTorch, as bench wants them: opened in a child process from a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sccg_runtime.errors import MissingDependencyError
from sccg_runtime.intensity import FloatArray


@dataclass(slots=True)
class TorchRunnable:
    """A checkpoint in PyTorch float32 (TF32 off).

    Attributes
    ----------
    name
        Of the row.
    checkpoint
        Path of the file.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    name: str
    checkpoint: Path
    device: str = "cpu"
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Callable[[FloatArray], FloatArray]:
        """Load the checkpoint; ``size`` needs no preparation in PyTorch."""
        import torch

        from sccg_teacher_student.checkpoint import load_checkpoint
        from sccg_teacher_student.precision import without_tf32

        if self.device == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError("PyTorch sees no CUDA device here")
        torch.set_num_threads(threads)
        generator = load_checkpoint(self.checkpoint).generator.to(self.device)
        self._facts = {
            "engine": "torch",
            "engine_version": torch.__version__,
            "device": self.device,
            "precision": "fp32",
            "precision_ran": {"fp32": sum(isinstance(part, _convolutions()) for part in generator.modules())},
            "size_mib": self.checkpoint.stat().st_size / 2**20,
        }

        @torch.inference_mode()
        def call(image: FloatArray) -> FloatArray:
            given = torch.from_numpy(np.array(image))[None].to(self.device)
            with without_tf32():
                output: FloatArray = generator(given)[0].cpu().numpy()
            return output

        return call

    def synchronize(self) -> None:
        """Wait for the GPU; nothing to wait for on a CPU."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after :meth:`open`."""
        return dict(self._facts)


def _convolutions() -> tuple[type, ...]:
    from torch import nn

    return (nn.Conv2d, nn.ConvTranspose2d)
