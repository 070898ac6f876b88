"""Networks in PyTorch, as bench wants them: opened in a child process from a path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sccg_runtime.errors import MissingDependencyError
from sccg_runtime.intensity import FloatArray


@dataclass(slots=True)
class TorchRunnable:
    """A checkpoint in PyTorch: float32 (TF32 off), or float16 by autocast.

    Attributes
    ----------
    name
        Of the row.
    checkpoint
        Path of the file.
    device
        ``"cpu"`` or ``"cuda"``.
    precision
        ``"fp32"``, or ``"fp16"``: convolutions in float16, what would overflow in float32.
    device_times_ms
        Of every call since :meth:`open`, by CUDA events, without copies; empty on a CPU.
    """

    name: str
    checkpoint: Path
    device: str = "cpu"
    precision: Literal["fp32", "fp16"] = "fp32"
    device_times_ms: list[float] = field(default_factory=list, repr=False)
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)

    def open(self, size: tuple[int, int], threads: int) -> Callable[[FloatArray], FloatArray]:
        """Load the checkpoint; ``size`` needs no preparation in PyTorch."""
        import torch

        from sccg_teacher_student.checkpoint import load_checkpoint
        from sccg_teacher_student.cuda_clock import event_time
        from sccg_teacher_student.precision import without_tf32

        if self.device == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError("PyTorch sees no CUDA device here")
        torch.set_num_threads(threads)
        generator = load_checkpoint(self.checkpoint).generator.to(self.device)
        times = self.device_times_ms = []

        @torch.inference_mode()
        def call(image: FloatArray) -> FloatArray:
            given = torch.from_numpy(np.array(image))[None].to(self.device)
            clock = event_time(times) if self.device == "cuda" else nullcontext()
            half = torch.autocast(self.device, torch.float16, enabled=self.precision == "fp16")
            with without_tf32(), half, clock:
                output = generator(given)
            result: FloatArray = output[0].float().cpu().numpy()
            return result

        self._facts = {
            "engine": "torch",
            "engine_version": torch.__version__,
            "device": self.device,
            "precision": self.precision,
            "precision_ran": _ran(generator, lambda: call(np.zeros((1, *size), np.float32))),
            "size_mib": self.checkpoint.stat().st_size / 2**20,
        }
        return call

    def describe(self) -> dict[str, Any]:
        """Facts for the row, known after :meth:`open`."""
        return dict(self._facts)


def _ran(generator: Any, run: Callable[[], object]) -> dict[str, int]:
    """Convolutions by the precision that they really gave, seen while ``run`` calls the network once."""
    from torch import nn

    names = {"torch.float32": "fp32", "torch.float16": "fp16"}
    counts: Counter[str] = Counter()
    hooks = [
        part.register_forward_hook(lambda _, __, output: counts.update([names[str(output.dtype)]]))
        for part in generator.modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return dict(sorted(counts.items()))
