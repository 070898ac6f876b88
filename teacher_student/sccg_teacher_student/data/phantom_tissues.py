"""Tissues of the phantom: CT numbers, and relaxation for the spin-echo equation.

CT numbers are round textbook values. Relaxation times are typical of 1.5 to 3 T, after Stanisz et al. (Magn Reson Med
54:507, 2005) and Bojorquez et al. (Magn Reson Imaging 35:69, 2017); proton densities are relative to water and close to
those that brain simulators use. T2 of fat is an effective value: the echo train of a turbo spin echo leaves fat bright.
Flowing blood is nearly void. None of this was fitted to measured images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

REPETITION_TIME_MS = 4000.0
ECHO_TIME_MS = 100.0
LabelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tissue:
    """One tissue.

    Attributes
    ----------
    index
        Its value in a label map (uint8).
    name
        Its name.
    hu
        Mean CT number in HU.
    texture_hu
        Standard deviation of its own structure (not of the scanner's noise), in HU.
    pd
        Proton density relative to water.
    t1_ms, t2_ms
        Relaxation times.
    """

    index: int
    name: str
    hu: float
    texture_hu: float
    pd: float
    t1_ms: float
    t2_ms: float

    @property
    def signal(self) -> float:
        """Spin-echo signal at the phantom's TR and TE, water with endless T2 and no saturation = 1."""
        return spin_echo(self.pd, self.t1_ms, self.t2_ms)


def spin_echo(
    pd: float, t1_ms: float, t2_ms: float, tr_ms: float = REPETITION_TIME_MS, te_ms: float = ECHO_TIME_MS
) -> float:
    """``S = PD (1 - exp(-TR / T1)) exp(-TE / T2)``, without unit."""
    return float(pd * (1 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms))


AIR = Tissue(0, "air", -1000, 0, 0.0, 1.0, 1.0)
SKIN = Tissue(1, "skin", 50, 8, 0.70, 1000, 55)
FAT = Tissue(2, "fat", -90, 10, 0.90, 320, 85)
MUSCLE = Tissue(3, "muscle", 50, 6, 0.80, 1050, 42)
BONE = Tissue(4, "cortical bone", 1350, 130, 0.04, 250, 10)
DIPLOE = Tissue(5, "diploe", 500, 140, 0.45, 420, 75)
DENSE_BONE = Tissue(6, "petrous bone", 1650, 150, 0.03, 250, 10)
CSF = Tissue(7, "cerebrospinal fluid", 8, 0, 1.00, 4200, 1800)
GREY = Tissue(8, "grey matter", 38, 1.2, 0.86, 1200, 97)
WHITE = Tissue(9, "white matter", 30, 1.0, 0.72, 800, 76)
DEEP_GREY = Tissue(10, "basal ganglia and thalamus", 37, 1.0, 0.82, 1050, 80)
PALLIDUM = Tissue(11, "pallidum", 39, 1.0, 0.76, 900, 62)
DURA = Tissue(12, "dura and falx", 58, 3, 0.60, 900, 40)
BLOOD = Tissue(13, "venous blood", 55, 2, 0.12, 1500, 120)
VITREOUS = Tissue(14, "vitreous body", 10, 0, 0.98, 4000, 1100)
LESION = Tissue(15, "lesion", 22, 2, 0.92, 1600, 190)
EDEMA = Tissue(16, "oedema", 25, 1.0, 0.84, 1250, 125)
CALCIFICATION = Tissue(17, "calcification", 200, 30, 0.30, 700, 35)

TISSUES = (
    AIR, SKIN, FAT, MUSCLE, BONE, DIPLOE, DENSE_BONE, CSF, GREY, WHITE, DEEP_GREY, PALLIDUM, DURA, BLOOD, VITREOUS,
    LESION, EDEMA, CALCIFICATION,
)  # fmt: skip
"""All tissues; ``TISSUES[label]`` is the tissue of a label."""

SKULL_LABELS = (BONE.index, DIPLOE.index, DENSE_BONE.index)
BRAIN_LABELS = tuple(t.index for t in (GREY, WHITE, DEEP_GREY, PALLIDUM, LESION, EDEMA))
