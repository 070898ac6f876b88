"""Paints tissues over each other with partial volume at their edges."""

from __future__ import annotations

import numpy as np

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data.phantom_tissues import AIR, LabelArray, Tissue


class Canvas:
    """One slice while it is drawn; starts as air.

    Attributes
    ----------
    labels
        (H, W) uint8, the tissue that fills most of each pixel.
    hu
        (H, W) float32, CT number before blur and noise.
    texture_hu
        (H, W) float32, strength of the tissue's own structure.
    signal
        (H, W) float32, spin-echo signal before bias, blur and noise.
    """

    def __init__(self, size: tuple[int, int], pixel_mm: float) -> None:
        self._pixel_mm = np.float32(pixel_mm)
        self.labels: LabelArray = np.full(size, AIR.index, np.uint8)
        self.hu: FloatArray = np.full(size, AIR.hu, np.float32)
        self.texture_hu: FloatArray = np.zeros(size, np.float32)
        self.signal: FloatArray = np.zeros(size, np.float32)

    def paint(self, tissue: Tissue, distance_mm: FloatArray) -> None:
        """Paint ``tissue`` where the signed distance is negative; an edge pixel gets its share of both tissues."""
        rows = np.flatnonzero((distance_mm < self._pixel_mm / 2).any(axis=1))
        if rows.size == 0:
            return
        part = slice(rows[0], rows[-1] + 1)
        share = np.clip(np.float32(0.5) - distance_mm[part] / self._pixel_mm, 0, 1).astype(np.float32)
        for image, value in (
            (self.hu, tissue.hu),
            (self.texture_hu, tissue.texture_hu),
            (self.signal, tissue.signal),
        ):
            image[part] += share * (np.float32(value) - image[part])
        self.labels[part][share > 0.5] = tissue.index
