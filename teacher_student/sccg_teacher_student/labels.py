"""The label cache: views and what the teacher made of them, computed once and kept on disk.

A cache is a folder of chunks ``00000.npy``, each (n, 3, H, W) float16: input, teacher's output, reference (NaN where
there is none). Its name is a hash of everything that the content depends on, so another run with the same teacher,
data and seed goes on where the last one stopped.
"""

from __future__ import annotations

import io
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sccg_runtime.contract import Precision
from sccg_runtime.engine import cpu_properties, import_openvino, openvino_core
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import write_bytes
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.networks.inference import infer
from sccg_teacher_student.precision import cpu_computes_bf16
from sccg_teacher_student.views import Base, make_view

CHUNK = 16
Labeller = Callable[[FloatArray], FloatArray]
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class LabelCache:
    """Labelled views on disk; a chunk is open while it is read, as a process may have few files open.

    Attributes
    ----------
    folder
        Where the chunks are.
    bases, seed
        What the views are made from.
    chunks
        How many there are.
    shape
        Of each, (16, 3, H, W).
    offset
        Where the values of each begin in its file, in bytes.
    """

    folder: Path
    bases: Sequence[Base]
    seed: int
    chunks: int = 0
    shape: tuple[int, ...] = ()
    offset: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        while (path := self._path(self.chunks)).is_file():
            try:
                chunk = self.chunk(self.chunks)
                fits = chunk.ndim == 4 and chunk.shape[:2] == (CHUNK, 3) and chunk.dtype == np.float16
            except (ValueError, EOFError):
                fits = False
            if not fits or (self.chunks and chunk.shape != self.shape):
                _log.warning("%s is damaged; labels are made again from there on", path)
                return
            self._count(chunk)

    def __len__(self) -> int:
        return CHUNK * self.chunks

    @property
    def size_gib(self) -> float:
        """Size on disk in GiB."""
        return gib_of(len(self), self.shape[-2:])

    def chunk(self, number: int) -> np.memmap[Any, np.dtype[np.float16]]:
        """Memory map (16, 3, H, W) float16 of a chunk by number."""
        opened: np.memmap[Any, np.dtype[np.float16]] = np.load(self._path(number), mmap_mode="r", allow_pickle=False)
        return opened

    def grow(self, label: Labeller) -> None:
        """Label the next chunk of views and write it, whole or not at all.

        Raises
        ------
        RefusedError
            The teacher gave a value that is not finite.
        """
        start, rows = len(self), []
        for number in range(start, start + CHUNK):
            image, reference = make_view(self.bases, self.seed, number)
            output = label(image[None])[0]
            if not np.isfinite(output).all():
                raise RefusedError(f"the teacher's output on view {number} is not finite")
            rows.append(np.stack([image, output, np.full_like(image, np.nan) if reference is None else reference]))
        whole = io.BytesIO()
        np.save(whole, np.stack(rows).astype(np.float16))
        write_bytes(self._path(self.chunks), whole.getvalue())  # NumPy itself does not say that a disk is full
        self._count(self.chunk(self.chunks))

    def fill(
        self,
        label: Labeller,
        *,
        limit_gib: float,
        views: int | None = None,
        seconds: float | None = None,
        progress: Callable[[int, float], None] = lambda count, seconds: None,
    ) -> None:
        """Grow until ``views`` views, ``seconds`` of wall time or ``limit_gib`` on disk are reached.

        At least one chunk is made, and only whole chunks. With ``views`` given, chunks beyond them (of a longer run
        before) are left on disk but not used. ``progress`` gets (number of views, seconds spent) after each chunk.
        """
        if views is not None:
            self.chunks = min(self.chunks, math.ceil(views / CHUNK))
        started = time.monotonic()
        while True:
            spent = time.monotonic() - started
            enough = (views is not None and len(self) >= views) or (seconds is not None and spent >= seconds)
            if self.chunks and (enough or self.size_gib * (1 + 1 / self.chunks) > limit_gib):
                return
            self.grow(label)
            progress(len(self), time.monotonic() - started)

    def batch(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        """Views by number as (n, 3, H, W) float32."""
        return torch.from_numpy(np.stack([self._view(int(n)) for n in numbers]).astype(np.float32))

    def _view(self, number: int) -> npt.NDArray[np.float16]:
        """Read alone: opening a map for it takes longer."""
        count = math.prod(self.shape[1:])
        path, start = self._path(number // CHUNK), self.offset + 2 * count * (number % CHUNK)
        return np.fromfile(path, np.float16, count, offset=start).reshape(self.shape[1:])

    def _count(self, chunk: np.memmap[Any, np.dtype[np.float16]]) -> None:
        self.chunks, self.shape, self.offset = self.chunks + 1, chunk.shape, chunk.offset

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"


def gib_of(views: int, size: Sequence[int]) -> float:
    """What a cache of so many views takes on disk, in whole chunks; ``size`` is (rows, columns)."""
    return 2 * 3 * math.ceil(views / CHUNK) * CHUNK * math.prod(size) / 2**30


def make_labeller(teacher: nn.Module, size: tuple[int, int], device: torch.device) -> tuple[Labeller, str]:
    """The fastest way at hand to run the teacher on slices of ``size``, and its name.

    On CUDA: PyTorch with TF32 off. On a CPU: OpenVINO, in bfloat16 where the CPU computes in it (labels then lie
    about 62 dB from float32 ones), else in float32.
    """
    if device.type == "cuda":
        on_gpu = teacher.to(device).eval()

        return partial(infer, on_gpu), "PyTorch on CUDA, float32"
    openvino, core = import_openvino(), openvino_core()
    precision: Precision = "bf16" if cpu_computes_bf16() else "fp32"
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO's converter uses torch.jit.trace, which is deprecated
        model = openvino.convert_model(teacher, example_input=torch.zeros(1, 1, *size), input=[1, 1, *size])
    compiled = core.compile_model(model, "CPU", cpu_properties(precision, torch.get_num_threads()))
    request = compiled.create_infer_request()

    def run_openvino(image: FloatArray) -> FloatArray:
        if image.shape[-2:] != size:
            raise InputError(f"slice of {image.shape[-2:]} pixels among slices of {size}")
        return np.array(request.infer(image[None])[0][0], np.float32)

    return run_openvino, f"OpenVINO on the CPU, {precision}"
