"""Weights of the parts of distillation's loss, and their decay; without torch: the command line knows them at once."""

from __future__ import annotations

from dataclasses import dataclass

from sccg_runtime.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the parts of the loss; a part of weight 0 is not computed.

    Attributes
    ----------
    output
        Charbonnier distance to the teacher's output, head times three.
    wavelet
        L1 of the high Haar bands, two levels: small generators lose these first.
    ssim
        1 - structural similarity to the teacher's output.
    reference
        L1 to the real image, on views that have one. It buys PSNR by blurring; off by default.
    adversarial
        Least-squares GAN term; a PatchGAN tells the teacher's outputs from the student's.
    features
        Feature matching at the taps. The teacher then runs in every step.
    """

    output: float = 1.0
    wavelet: float = 0.7
    ssim: float = 0.1
    reference: float = 0.0
    adversarial: float = 0.0
    features: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) < 1e4:
                raise InputError(f"loss weight {name} must be 0 or more, and less than 10000")


USUAL = LossWeights()
USUAL_DECAY = 1e-4
