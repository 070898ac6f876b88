"""Validation during a teacher's training: figures of METRICS on held-out pairs, pictures, and the best checkpoint."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sccg_bench.protocols import Pair
from sccg_bench.quality import quality
from sccg_bench.report.sheets import stacked_png, strip_png
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError, RefusedError
from sccg_runtime.files import write_bytes
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.checkpoint import load_checkpoint, save_checkpoint
from sccg_teacher_student.csv_log import append_row, drop_rows
from sccg_teacher_student.networks.inference import infer
from sccg_teacher_student.networks.spec import GeneratorSpec
from sccg_teacher_student.record import TrainingRecord

FIGURES = ("psnr_db", "ssim", "mae_u8", "hf_ratio")
BEST_BY = "ssim"  # both reward blur, PSNR more
SHEET_SLICES = 4


@dataclass(slots=True)
class Validator:
    """Measures one direction, and keeps the best generator so far.

    Attributes
    ----------
    folder
        Run folder: ``teacher_DIRECTION.safetensors`` (the best by ``BEST_BY``, mean over patients),
        ``validation_DIRECTION.csv`` and ``sheets/DIRECTION-STEP.png`` are written there.
    pairs
        Held-out pairs.
    spec, record
        Of the checkpoint; the record says the direction.
    told
        Gets (step, figures) of every validation.
    step
        That the run goes on from; lines beyond it, and damaged ones, are dropped.
    rows
        Figures by step, those of a run before it was resumed included.

    Raises
    ------
    InputError
        The figures of that run cannot be read.
    """

    folder: Path
    pairs: Sequence[Pair]
    spec: GeneratorSpec
    record: TrainingRecord
    told: Callable[[int, dict[str, float]], None]
    step: int = 0
    rows: dict[int, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {}
        if not self._log.is_file():
            return
        try:
            with self._log.open("rb") as file:
                head = file.readline().rstrip()  # of a disk that was full, nothing
            if head and head != ",".join(("step", *FIGURES)).encode():
                raise ValueError
            drop_rows(self._log, after=self.step)
            with self._log.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self.rows[int(row["step"])] = {name: float(row[name]) for name in FIGURES}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self._log} is damaged: put back what was in it, or take it away") from None

    @property
    def direction(self) -> Direction:
        """Of the generator."""
        return self.record.direction

    @property
    def checkpoint(self) -> Path:
        """The best generator so far."""
        return self.folder / f"teacher_{self.direction}.safetensors"

    @property
    def best(self) -> tuple[int, dict[str, float]]:
        """(step, figures) of the best validation so far, which :attr:`checkpoint` is of."""
        return max(self.rows.items(), key=lambda item: item[1][BEST_BY])

    @property
    def _log(self) -> Path:
        return self.folder / f"validation_{self.direction}.csv"

    def run(self, step: int, generator: nn.Module) -> None:
        """Measure ``generator``, in evaluation mode, after ``step`` steps, unless that step was measured before.

        Raises
        ------
        RefusedError
            The checkpoint read back gives something else than the generator that was saved.
        """
        if step in self.rows:
            return
        outputs = [infer(generator, pair.given(self.direction)) for pair in self.pairs]
        summary = quality(self.pairs, outputs, None, None, self.direction).summary.quality
        figures = {name: float("nan") if (value := summary[name]) is None else value for name in FIGURES}
        write_bytes(self.folder / "sheets" / f"{self.direction}-{step:06d}.png", self._sheet(outputs))
        if not self.rows or figures[BEST_BY] > self.best[1][BEST_BY]:
            save_checkpoint(self.checkpoint, generator, self.spec, self.record)
            image = self.pairs[0].given(self.direction)
            plain = copy.deepcopy(generator).cpu()
            plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as it is read back
            trained = infer(plain, image)
            if not np.allclose(infer(load_checkpoint(self.checkpoint).generator, image), trained, atol=1e-4):
                raise RefusedError(f"{self.checkpoint} read back differs from the generator that was trained")
        append_row(self._log, ["step", *FIGURES], [step, *(f"{value:.6g}" for value in figures.values())])
        self.rows[step] = figures
        self.told(step, figures)

    def _sheet(self, outputs: Sequence[FloatArray]) -> bytes:
        """Input, real image, output and difference of a few slices, evenly spread."""
        given, made = modalities(self.direction)
        strips = []
        for index in np.unique(np.linspace(0, len(self.pairs) - 1, SHEET_SLICES).round().astype(int)):
            pair, output = self.pairs[index], outputs[index]
            real = pair.image(made)
            panels = [
                (f"{pair.label} {given}", pair.given(self.direction)),
                (f"real {made}", real),
                (f"synthetic {made}", output),
            ]
            strips.append(strip_png(panels, output, real, "real"))
        return stacked_png(strips)
