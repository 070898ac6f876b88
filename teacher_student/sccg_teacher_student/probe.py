"""What a teacher is invariant to; the recipe of distillation depends on the answers."""

from __future__ import annotations

import numpy as np

from sccg_bench.metrics import psnr_db
from sccg_bench.scale import to_u8
from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.labels import Labeller

INVARIANT_DB = 40.0


def probe_teacher(label: Labeller, image: FloatArray) -> dict[str, float]:
    """PSNR in dB (u8 scale, capped at 100) between what the teacher gives and what an invariance predicts.

    Parameters
    ----------
    label
        Runs the teacher on (1, H, W).
    image
        One slice (1, H, W) in [-1, 1] with a head in it.

    Returns
    -------
    dict
        ``affine``: output for 0.8 x - 0.1 against output for x. ``shift4``: output of the slice shifted by 4 pixels
        against the shifted output (16 pixels of border left out, a quarter of small slices).
    """
    plain = label(image)
    shifted = label(np.roll(image, 4, axis=2))
    rows, columns = (min(16, side // 4) for side in image.shape[1:])
    inner = np.s_[:, rows:-rows, columns:-columns]
    return {
        "affine": _psnr(plain, label(image * np.float32(0.8) - np.float32(0.1))),
        "shift4": _psnr(np.roll(plain, 4, axis=2)[inner], shifted[inner]),
    }


def _psnr(first: FloatArray, second: FloatArray) -> float:
    return round(psnr_db(to_u8(first), to_u8(second))[0], 2)
