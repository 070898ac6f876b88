"""The distillation task: a student learns the teacher's cached outputs."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sccg_runtime.errors import InputError, one_line
from sccg_teacher_student import parallel
from sccg_teacher_student.checkpoint import load_discriminator
from sccg_teacher_student.features import FeatureMatch, Tap
from sccg_teacher_student.gauge import DetailGauge
from sccg_teacher_student.labels import LabelCache
from sccg_teacher_student.loss_weights import LossWeights
from sccg_teacher_student.losses import charbonnier, head_weight, least_squares, sharpened, ssim, wavelet_l1
from sccg_teacher_student.networks.frozen import frozen
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.objective import discriminator_loss
from sccg_teacher_student.task import WHOLE, Part

_log = logging.getLogger(__name__)
SHARPEN_FROM = 0.5  # share of the run; before, a student learns where detail lies


class DistillTask:
    """Owns student, losses and, where asked for, critic and feature match.

    Parameters
    ----------
    student
        (N, 1, H, W) -> (N, 1, H, W).
    cache
        Labelled views.
    weights
        Of the losses.
    batch
        Slices per step.
    shift
        Largest free shift in pixels, a multiple of 4: input and label move alike. 0 where the teacher does not
        follow shifts.
    device, amp
        Where to compute, and in what (None: float32).
    teacher, taps
        Needed for feature matching only.
    gauge
        Says in the second half of the run by how much labels are sharpened, or None.
    critic
        Discriminator that the adversarial term starts from (a teacher's training leaves one), or None: a fresh one.
    """

    def __init__(
        self,
        student: nn.Module,
        cache: LabelCache,
        weights: LossWeights,
        *,
        batch: int,
        shift: int,
        device: torch.device,
        amp: torch.dtype | None,
        teacher: nn.Module | None = None,
        taps: tuple[Tap, ...] = (),
        gauge: DetailGauge | None = None,
        critic: Path | None = None,
    ) -> None:
        self.network = student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._cache, self._weights, self._batch, self._shift = cache, weights, batch, shift
        self._device, self._amp = device, amp
        self.scaled = amp is torch.float16
        self._margin = float(getattr(student, "clip_margin", 0.0))
        self._gauge = gauge
        self._teacher = teacher.to(device) if teacher is not None else None
        self._match: FeatureMatch | None = None
        if weights.features > 0:
            if self._teacher is None or not taps:
                raise InputError("the feature loss needs --feature-tap TEACHER_MODULE=STUDENT_MODULE")
            height, width = cache.shape[-2:]
            self._match = FeatureMatch(self._teacher, self.network, taps, (height, width)).to(device)
        self._forward: Callable[[Tensor], Tensor] = self.network
        self._distances = distances
        self._critic: PatchDiscriminator | None = None
        if weights.adversarial > 0:
            self._critic = load_discriminator(critic) if critic else PatchDiscriminator()
            self._critic.to(device)
            self._teaching = parallel.wrapped(self._critic)
            self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), lr=1e-4, betas=(0.5, 0.999))

    def trainable(self) -> list[nn.Parameter]:
        """The 1x1 projections of feature matching, if any (the critic has its own optimiser)."""
        return [] if self._match is None else list(self._match.parameters())

    def state(self) -> dict[str, Any]:
        """Everything that learns beside the student."""
        state: dict[str, Any] = {}
        if self._gauge is not None:
            state["gauge"] = self._gauge.state()
        if self._match is not None:
            state["match"] = self._match.state_dict()
        if self._critic is not None:
            state |= {"critic": self._critic.state_dict(), "critic_optimizer": self._critic_optimizer.state_dict()}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        if self._gauge is not None:
            self._gauge.restore(state["gauge"])
        if self._match is not None:
            self._match.load_state_dict(state["match"])
        if self._critic is not None:
            self._critic.load_state_dict(state["critic"])
            self._critic_optimizer.load_state_dict(state["critic_optimizer"])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(input, teacher's output, reference) of a random batch, (N, 1, H, W) each; NaN where no reference is.

        Of several processes, each gets every so many slices.
        """
        mine = slice(parallel.rank(), None, parallel.processes())
        numbers = torch.randint(len(self._cache), (self._batch,), generator=generator)[mine].numpy()
        stack = self._cache.batch(numbers)
        if self._shift:
            steps = self._shift // 4
            moves = (torch.randint(-steps, steps + 1, (self._batch, 2), generator=generator) * 4)[mine]
            stack = torch.stack([shifted(item, int(dy), int(dx)) for item, (dy, dx) in zip(stack, moves, strict=True)])
        stack = stack.to(self._device)
        return stack[:, 0:1], stack[:, 1:2], stack[:, 2:3]

    def losses(self, generator: torch.Generator, part: Part = WHOLE) -> dict[str, Tensor]:
        """Named losses of one batch; ``total`` is their weighted sum.

        Their mean over the parts of a batch is what one part alone would give.
        """
        drawn = self.draw(generator)
        turns = max(1, part.count // parallel.processes())
        mine = slice(part.index % turns, None, turns)
        image, label, reference = (each[mine] for each in drawn)
        inside = head_weight(drawn[0], drawn[1])
        inside = (inside / parallel.mean(inside.mean()))[mine]
        half = range(max(1, self._batch // 2))  # slices are in random order: half of them cost half the time
        scored = len(half[parallel.rank() :: parallel.processes()][mine])
        weights = self._weights
        with contextlib.ExitStack() as stack:
            features = None
            if self._match is not None and self._teacher is not None:
                features = stack.enter_context(self._match.capture(self._teacher, self.network))
                with torch.no_grad():
                    self._teacher(image)
            output = self._output(image)
        wanted = label
        if self._gauge is not None and part.share >= SHARPEN_FROM:
            self._gauge.step(self.network, self._amp)
            wanted = sharpened(label, self._gauge.gain)
        parts = self._distances(output, beyond(wanted, self._margin), inside, weights, scored)
        if "ssim" in parts:
            parts["ssim"] = parts["ssim"] * (part.count * scored / len(half))
        if weights.reference:
            known = torch.isfinite(drawn[2])
            share = parallel.mean(known.float().mean())
            known = known[mine]
            distance = (output[known] - reference[known]).abs().sum()
            parts["reference"] = distance / (share * known.numel()).clamp(min=1)
        if self._critic is not None:
            self._teach_critic(label, output.detach())
            parts["adversarial"] = least_squares(frozen(self._critic, output), real=True)
        if features is not None and self._match is not None:
            parts["features"] = self._match(*features)
        total = sum((getattr(weights, name) * value for name, value in parts.items()), output.new_zeros(()))
        named = {"total": total, **parts}
        if self._gauge is not None:
            named |= {"gauge_ratio": torch.tensor(self._gauge.ratio), "gauge_gain": torch.tensor(self._gauge.gain)}
        return named

    def compile(self) -> None:
        """Compile student and losses by a pass over one batch that nothing learns from; stay as it is where that fails.

        Takes about half a minute. torch.compile needs a C++ compiler and Python's headers; TORCHDYNAMO_DISABLE=1 turns
        it off. Feature taps see nothing of a compiled network, and parts of a batch must be of one size.
        """
        plain, buffers = (self._forward, self._distances), [buffer.clone() for buffer in self.network.buffers()]
        self.network.train()
        image, label, _ = self.draw(torch.Generator())
        inside, scored = head_weight(image, label), max(1, self._batch // 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what PyTorch itself does there
                torch.compiler.reset()  # of other students: torch gives a function up after some recompilations
                self._forward = torch.compile(self._forward, dynamic=False)
                self._distances = torch.compile(self._distances, dynamic=False)
                parts = self._distances(
                    self._output(image), beyond(label, self._margin), inside / inside.mean(), self._weights, scored
                )
                torch.autograd.backward(sum(parts.values(), torch.zeros((), device=self._device)))
        except (RuntimeError, OSError) as error:  # all that torch.compile raises, and a folder for code that is none
            _log.warning("training goes on without torch.compile, slower: %s", one_line(error))
            self._forward, self._distances = plain
        self.network.zero_grad(set_to_none=True)
        for buffer, before in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def _output(self, image: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=self._amp, enabled=self._amp is not None):
            return self._forward(image.contiguous(memory_format=torch.channels_last)).float()

    def _teach_critic(self, real: Tensor, fake: Tensor) -> None:
        if self._critic is None:
            return
        self._critic_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(discriminator_loss(self._teaching(real), self._teaching(fake)))
        self._critic_optimizer.step()


def distances(output: Tensor, wanted: Tensor, inside: Tensor, weights: LossWeights, scored: int) -> dict[str, Tensor]:
    """The losses between an output and what is wanted in its place, as far as they have a weight.

    All (N, 1, H, W); ``inside`` weighs the pixels, 1 in the mean over a step. SSIM is that of the first ``scored``
    slices, and left out where there are none.
    """
    parts = {"output": charbonnier(output, wanted, inside)}
    if weights.wavelet:
        parts["wavelet"] = wavelet_l1(output, wanted, inside)
    if weights.ssim and scored:
        parts["ssim"] = 1 - ssim(output[:scored], wanted[:scored])
    return parts


def beyond(label: Tensor, margin: float, saturated: float = 0.99) -> Tensor:
    """Move what is ``saturated`` or more by ``margin`` away from zero; any shape, in [-1, 1]."""
    return label + margin * torch.sign(label) * (label.abs() >= saturated)


def shifted(stack: Tensor, rows: int, columns: int) -> Tensor:
    """Move (C, H, W) by whole pixels; what comes in at the border repeats the border (NaN stays NaN)."""
    height, width = stack.shape[-2:]
    down = torch.arange(height).sub(rows).clamp(0, height - 1)
    right = torch.arange(width).sub(columns).clamp(0, width - 1)
    return stack[:, down][:, :, right]
