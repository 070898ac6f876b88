"""The detail gauge: how sharp the student is on a case that it does not learn from, and what to ask for because of it.

A student reaches the teacher's sharpness on the views that it learns from and still blurs other patients: where it
has to guess, it guesses softly. The gauge measures that on a case kept out of the labelled views, and says how much
sharper than the teacher's outputs the labels must be until the kept-out case has the detail that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sccg_bench.highpass import CUTOFF_CYCLES_PER_PX
from sccg_teacher_student.bases import pattern
from sccg_teacher_student.losses import head_weight
from sccg_teacher_student.views import Base

FEWEST_CASES = 4
FEWEST_SLICES, MOST_SLICES = 6, 12


def keep_out(bases: Sequence[Base]) -> tuple[list[Base], list[Base]]:
    """(slices to learn from, slices of one case for the gauge).

    The smallest case of six or more slices is taken, if there is one and there are at least four cases; before it, one
    of whose slices no other case has a copy. Only acquired slices count: a student of few acquired ones is not to lose
    a case of them to what a reverse teacher made.
    """
    cases: dict[str, list[Base]] = {}
    for base in bases:
        if not base.synthetic:
            cases.setdefault(base.case, []).append(base)
    known = [name for name, slices in cases.items() if len(slices) >= FEWEST_SLICES]
    if len(cases) < FEWEST_CASES or not known:
        return list(bases), []
    owners: dict[bytes | None, set[str]] = {}
    for name, slices in cases.items():
        for base in slices:
            owners.setdefault(pattern(base.load()[0]), set()).add(name)
    owners.pop(None, None)
    copied = {name for names in owners.values() if len(names) > 1 for name in names}
    kept = min(known, key=lambda name: (name in copied, len(cases[name])))
    step = math.ceil(len(cases[kept]) / MOST_SLICES)
    return [base for base in bases if base.case != kept], cases[kept][::step]


@dataclass(slots=True)
class DetailGauge:
    """Steers the gain of the labels' detail.

    Attributes
    ----------
    images, labels
        (N, 1, H, W) in [-1, 1]: slices of the kept-out case, and the teacher's output on them.
    wanted
        Energy of the student's detail over the teacher's that is aimed at.
    every
        Steps between two measurements.
    rate
        Share of the measured difference (of logarithms) that one measurement corrects. The first corrects all of it.
    largest
        Limit of the gain.
    gain
        What the labels' detail is to be multiplied by; 1 or more.
    ratio
        Last measurement: the student's high-pass energy over the teacher's, geometric mean over slices.
    steps
        Steps so far.
    """

    images: Tensor
    labels: Tensor
    wanted: float = 1.0
    every: int = 100
    rate: float = 0.15
    largest: float = 1.5
    gain: float = 1.0
    ratio: float = 1.0
    steps: int = 0
    _head: Tensor = field(init=False, repr=False)
    _energies: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._head = head_weight(self.images, self.labels) > 1
        self._energies = self._energy(self.labels)

    def step(self, network: nn.Module, amp: torch.dtype | None) -> None:
        """Count a training step; at the first and every ``every``-th after it, measure and correct the gain."""
        self.steps += 1
        if (self.steps - 1) % self.every:
            return
        network.eval()
        with torch.no_grad(), torch.autocast(self.images.device.type, dtype=amp, enabled=amp is not None):
            outputs = [network(image[None].contiguous(memory_format=torch.channels_last)) for image in self.images]
        network.train()
        shown = self._energy(torch.cat(outputs).float())
        difference = float((shown.log() - self._energies.log()).mean())
        self.ratio = math.exp(difference)
        missing = (math.log(self.wanted) - difference) / 2  # of amplitudes
        gain = self.gain * math.exp(missing if self.steps == 1 else self.rate * missing)
        self.gain = max(1.0, min(self.largest, gain))

    def _energy(self, slices: Tensor) -> Tensor:
        """Energy above a quarter of the Nyquist frequency inside the head, (N,)."""
        rows, columns = slices.shape[-2:]
        down = torch.fft.fftfreq(rows, device=slices.device)[:, None]
        right = torch.fft.rfftfreq(columns, device=slices.device)[None]
        spectrum = torch.fft.rfft2(slices) * (torch.hypot(down, right) > CUTOFF_CYCLES_PER_PX)
        passed = torch.fft.irfft2(spectrum, s=(rows, columns))
        energy: Tensor = (passed**2 * self._head).sum((1, 2, 3)) + 1e-3
        return energy

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"gain": self.gain, "ratio": self.ratio, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.gain, self.ratio, self.steps = float(state["gain"]), float(state["ratio"]), int(state["steps"])
