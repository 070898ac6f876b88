"""The teacher's task: the paper's hybrid objective, for one direction or for both with cycle consistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sccg_runtime.direction import REVERSE, Direction, modalities
from sccg_runtime.errors import InputError
from sccg_teacher_student import parallel
from sccg_teacher_student.extractors import make_extractor
from sccg_teacher_student.losses import least_squares
from sccg_teacher_student.networks.frozen import frozen
from sccg_teacher_student.networks.patchgan import PatchDiscriminator
from sccg_teacher_student.objective import cycle_consistency, discriminator_loss, pixel_translation, pixel_weights
from sccg_teacher_student.structure import Structure
from sccg_teacher_student.task import Part
from sccg_teacher_student.teaching_slices import BOTH, Batch, TeachingSlices


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridWeights:
    """Weights of the hybrid objective (PAPER section "Loss"); a part of weight 0 is not computed.

    Attributes
    ----------
    adversarial
        Least-squares GAN term.
    pixel
        Pixel translation: L1 to the real image.
    structure
        Structural consistency of input and output.
    cycle
        L1 between a slice and what both generators make of it in turn.
    uniform_pixels
        Leave out P_pix: every pixel counts alike.
    """

    adversarial: float = 1.0
    pixel: float = 100.0
    structure: float = 10.0
    cycle: float = 10.0
    uniform_pixels: bool = False

    def __post_init__(self) -> None:
        for name in ("adversarial", "pixel", "structure", "cycle"):
            if not 0 <= getattr(self, name) < 1e4:
                raise InputError(f"loss weight {name} must be 0 or more, and less than 10000")
        if not (self.adversarial or self.pixel):
            raise InputError("--weight-adversarial 0 and --weight-pixel 0: there is nothing to learn the output from")
        if self.pixel and not (self.adversarial or self.uniform_pixels):
            raise InputError("--weight-adversarial 0: there is no discriminator for P_pix; say --uniform-pixels")


class TeacherTask:
    """Owns generators, discriminators and structure losses.

    All of them take one step of the same optimiser. As in CycleGAN, the discriminator's step sees what the generator
    made before its own step; each network's gradient leaves the others alone.

    Parameters
    ----------
    generators
        By direction; with two of them both directions are trained, and cycle consistency counts if it has a weight.
    slices
        What to learn from.
    weights
        Of the losses.
    batch
        Slices per step, over all processes and parts.
    features
        Extractor of structural consistency, as on the command line.
    device, amp
        Where to compute, and in what (None: float32).
    """

    def __init__(
        self,
        generators: Mapping[Direction, nn.Module],
        slices: TeachingSlices,
        weights: HybridWeights,
        *,
        batch: int,
        features: str,
        device: torch.device,
        amp: torch.dtype | None,
    ) -> None:
        networks = nn.ModuleDict({str(direction): generator for direction, generator in generators.items()})
        self.network = networks.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._slices, self._weights, self._batch = slices, weights, batch
        self._device, self._amp = device, amp
        self.scaled = amp is torch.float16
        directions: Sequence[Direction] = list(generators)
        self.discriminators: dict[Direction, PatchDiscriminator] = {}
        self.structures: dict[Direction, Structure] = {}
        self.features = "none"
        for direction in directions:
            if weights.adversarial:
                critic = PatchDiscriminator().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                self.discriminators[direction] = critic
            if weights.structure:
                extractor, self.features = make_extractor(features, generators[direction])
                self.structures[direction] = Structure(extractor).to(device)

    def trainable(self) -> list[nn.Parameter]:
        """The discriminators and the projections of structural consistency."""
        return [parameter for part in self._beside().values() for parameter in part.parameters()]

    def state(self) -> dict[str, Any]:
        """The same, by name."""
        return {name: part.state_dict() for name, part in self._beside().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        for name, part in self._beside().items():
            part.load_state_dict(state[name])

    def _beside(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {}
        for direction, critic in self.discriminators.items():
            found[f"discriminator_{direction}"] = critic
        for direction, structure in self.structures.items():
            found[f"projections_{direction}"] = structure.project
        return found

    def losses(self, generator: torch.Generator, part: Part) -> dict[str, Tensor]:
        """Named losses, per direction where there are two; ``total`` is their weighted sum.

        ``discriminator`` and ``contrast`` (InfoNCE) train what is beside the generators and have weight 1.

        Raises
        ------
        InputError
            A loss is not finite; the message names the slices.
        """
        batch = self._slices.draw(self._batch, part)
        named: dict[str, Tensor] = {}
        total = torch.zeros((), device=self._device)
        for direction in self.network:
            found = self._of_direction(direction, batch, generator)
            for name, value in found.items():
                named[name if len(self.network) == 1 else f"{direction}_{name}"] = value
                total = total + getattr(self._weights, name, 1.0) * value
        if not torch.isfinite(total):
            values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in named.items())
            raise InputError(
                f"step {part.step}: the loss is not finite ({values}) with {', '.join(self._blamed(batch))}; "
                "look at these slices, lower --learning-rate, or use --amp off; last.pt is the last good state"
            )
        return {"total": total, **named}

    def _of_direction(self, direction: Direction, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        given, made = modalities(direction)
        there, weights = batch.there, self._weights
        of_given, of_made, of_pairs = (batch.shares[needed] for needed in ((given,), (made,), BOTH))
        image = batch.inputs[given][there[given]].to(self._device)
        real = batch.targets[made][there[made]].to(self._device)
        paired = there[made][there[given]].to(self._device)
        target = batch.targets[made][there[given] & there[made]].to(self._device)
        output = self._run(self.network[direction], image)
        found: dict[str, Tensor] = {}
        scores = None
        critic = self.discriminators.get(direction)
        if critic is not None:
            with self._autocast():
                scores = frozen(critic, output).float()
            found["adversarial"] = of_given * least_squares(scores, real=True)
            found["discriminator"] = discriminator_loss(
                self._run(critic, real), self._run(critic, output.detach()), (of_made, of_given)
            )
        if weights.pixel:
            strength = None
            if scores is not None and not weights.uniform_pixels:
                strength = pixel_weights(scores[paired], (image.shape[2], image.shape[3]))
            found["pixel"] = of_pairs * pixel_translation(output[paired], target, strength)
        if direction in self.structures:
            with self._autocast():
                consistency, contrast = self.structures[direction](image, output, generator)
            found["structure"], found["contrast"] = of_given * consistency, of_given * contrast
        if weights.cycle and REVERSE[direction] in self.network:
            back = self._run(self.network[REVERSE[direction]], output)
            whole = batch.targets[given][there[given]].to(self._device)
            found["cycle"] = of_given * cycle_consistency(back, whole)
        return found

    def _run(self, network: nn.Module, image: Tensor) -> Tensor:
        with self._autocast():
            output: Tensor = network(image.contiguous(memory_format=torch.channels_last))
        return output.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._amp, enabled=self._amp is not None)

    def _blamed(self, batch: Batch) -> Sequence[str]:
        """Names of the slices that are not finite or have no finite output; all, where none stands out.

        Among several processes, the joint batch norm spreads what is not finite: it began elsewhere then.
        """
        bad: list[str] = []
        with torch.no_grad():
            for direction in self.network:
                given, made = modalities(direction)
                for number, name in enumerate(batch.names):
                    image, target = batch.inputs[given][number], batch.targets[made][number]
                    output = self._run(self.network[direction], image[None].to(self._device))
                    if not all(bool(torch.isfinite(part).all()) for part in (image, target, output)):
                        bad.append(name)
        return list(dict.fromkeys(bad)) or (batch.names if parallel.processes() == 1 else ["another process's slices"])
