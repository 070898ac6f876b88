"""Feature distillation: taps by module name, compared through learnable 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sccg_runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class Tap:
    """One pair of modules whose outputs are compared: names as in ``named_modules()``."""

    teacher: str
    student: str


def parse_tap(text: str) -> Tap:
    """``TEACHER_MODULE=STUDENT_MODULE``, such as ``model.14=blocks.1`` (InputError otherwise)."""
    teacher, _, student = (part.strip() for part in text.partition("="))
    if not (teacher and student):
        raise InputError(f"feature tap {text!r} is not TEACHER_MODULE=STUDENT_MODULE")
    return Tap(teacher, student)


@contextmanager
def tapped(network: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """While open, every run of ``network`` puts the named modules' outputs into the dictionary.

    Raises
    ------
    InputError
        A name is not there; the message lists names that are.
    """
    modules = dict(network.named_modules())
    missing = [name for name in names if name not in modules]
    if missing:
        near = [name for name in modules if name and "." in name][:12]
        raise InputError(
            f"no module {', '.join(missing)} in {type(network).__name__}; there are {', '.join(near)}, ..."
        )
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[name] = output.clone()  # the layer after may work in place

        handle: torch.utils.hooks.RemovableHandle = modules[name].register_forward_hook(hook)
        return handle

    handles = [keep(name) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class FeatureMatch(nn.Module):
    """Mean squared error between teacher features and 1x1-projected student features, mean over taps."""

    def __init__(self, teacher: nn.Module, student: nn.Module, taps: tuple[Tap, ...], size: tuple[int, int]) -> None:
        super().__init__()
        self.taps = taps
        example = next(student.parameters()).new_zeros(1, 1, *size)
        with torch.no_grad(), self.capture(teacher, student) as (theirs, ours):
            training = student.training
            teacher(example)
            student.eval()(example)
            student.train(training)
            silent = [tap.teacher for tap in taps if tap.teacher not in theirs]
            silent += [tap.student for tap in taps if tap.student not in ours]
            if silent:
                raise InputError(f"module {', '.join(silent)} is a container that gives no output; tap one inside it")
            channels = [(ours[tap.student].shape[1], theirs[tap.teacher].shape[1]) for tap in taps]
        self.project = nn.ModuleList(nn.Conv2d(own, their, 1) for own, their in channels)

    @contextmanager
    def capture(self, teacher: nn.Module, student: nn.Module) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Collect both networks' outputs at the taps while open."""
        with (
            tapped(teacher, [tap.teacher for tap in self.taps]) as theirs,
            tapped(student, [tap.student for tap in self.taps]) as ours,
        ):
            yield theirs, ours

    def forward(self, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> Tensor:
        """Features by module name, (N, C, H, W) each, -> scalar."""
        total = next(self.parameters()).new_zeros(())
        for tap, project in zip(self.taps, self.project, strict=True):
            goal = theirs[tap.teacher].detach()
            own = project(ours[tap.student].float())
            own = F.interpolate(own, goal.shape[-2:], mode="bilinear", align_corners=False)
            total = total + F.mse_loss(own, goal)
        return total / len(self.taps)
