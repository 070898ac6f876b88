"""One simulated head: which tissue is where. Drawn slice by slice from signed distances, outside to inside."""

from __future__ import annotations

import numpy as np

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data import phantom_tissues as t
from sccg_teacher_student.data.phantom_brain import Brain
from sccg_teacher_student.data.phantom_canvas import Canvas
from sccg_teacher_student.data.phantom_shapes import Points, Waves, ellipsoid, rotation, smooth_max, step, tube

Z_RANGE_MM = (-46.0, 72.0)
"""Lowest and highest edge of the stack: from the orbits to just below the vertex."""


class Anatomy:
    """The head of one case, the same for every call with the same generator state.

    Parameters
    ----------
    rng
        Draws everything that differs between cases: sizes, pose, warp, folds, lesion.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._scale = rng.normal(1, 0.025, size=3).clip(0.94, 1.06).astype(np.float32)
        self._shift = rng.uniform(-3, 3, size=3).astype(np.float32)
        self._rotation = rotation(rng.normal(0, 3), rng.normal(0, 2), rng.normal(0, 3))
        self._warp = [Waves(rng, 6, (75, 170)) for _ in range(3)]
        self._fine_warp = [Waves(rng, 8, (28, 60)) for _ in range(2)]
        self._skull_noise = Waves(rng, 10, (40, 110))
        self._scalp_noise = Waves(rng, 8, (45, 120))
        self._cells = Waves(rng, 16, (9, 15))
        self._patches = Waves(rng, 12, (14, 34))
        self._skull_mm = float(rng.uniform(5.4, 7.6))
        self._scalp_mm = float(rng.uniform(4.2, 6.2))
        self._right_narrower = float(rng.uniform(0.0, 0.03))
        self._sinus = float(rng.uniform(0.6, 1.2))
        self._brain = Brain(rng)

    def draw(self, z_mm: float, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Canvas:
        """Draw the axial slice at height ``z_mm``.

        Parameters
        ----------
        z_mm
            Height above the head's centre.
        size
            (rows, columns).
        spacing_mm
            (row, column) distance of pixel centres.
        """
        points = self._to_head(z_mm, size, spacing_mm)
        canvas = Canvas(size, float(np.mean(spacing_mm)))
        egg, cavity = self._cavity(points, spacing_mm)
        self._draw_scalp_and_skull(canvas, points, egg, cavity)
        if z_mm < 0:
            self._draw_face(canvas, points, cavity, egg)
        self._brain.draw(canvas, points, cavity)
        if z_mm < -12:
            self._draw_petrous(canvas, points, egg)
        return canvas

    def _to_head(self, z_mm: float, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Points:
        """Undo pose and warp: head coordinates of every pixel."""
        rows, columns = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing_mm, strict=True))
        y, x = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij")
        stacked = np.stack([x, y, np.full_like(x, z_mm)]).reshape(3, -1) - self._shift[:, None]
        turned = (self._rotation.T @ stacked / self._scale[:, None]).reshape(3, *size)
        placed: Points = (turned[0], turned[1], turned[2])
        bend = [waves.value(placed) * np.float32(1.3) for waves in self._warp]
        fine = [waves.value(placed) * np.float32(0.45) for waves in self._fine_warp]
        return placed[0] + bend[0] + fine[0], placed[1] + bend[1] + fine[1] + 2, placed[2] + bend[2]

    def _cavity(self, points: Points, spacing_mm: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
        """Signed distances to the egg of the vault (without a base) and to the brain's cavity (with its base)."""
        x, y, z = points
        side = np.where(x < 0, np.float32(1 - self._right_narrower), np.float32(1))
        a = 66 * (1 + np.float32(0.11) * np.clip(y / 82, -1.2, 1.2)) * side
        b, c = np.float32(84), np.where(z > 0, np.float32(77), np.float32(118))
        flat = (np.abs(x / a) ** 2.25 + np.abs(y / b) ** 2.25) ** (1 / 2.25)
        rho = np.sqrt(flat**2 + (z / c) ** 2)
        slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) / np.maximum(rho, 1e-3)
        egg = (rho - 1) / np.maximum(slope, np.float32(1 / 118))
        behind_orbits, behind_petrous = step(y + 41, 1.6), step(y - 4, 3.0)
        sella = step(13 - np.abs(x), 1.2) * step(y + 50, 2.0)
        middle = -52 + 25 * sella
        floor = (-23 - 0.08 * np.abs(x)) * (1 - behind_orbits)
        floor = floor + behind_orbits * ((1 - behind_petrous) * middle - 78 * behind_petrous)
        down, across = np.gradient(floor, *spacing_mm)
        base = np.minimum((floor - z) / np.sqrt(1 + down**2 + across**2), -22 - z)  # no step of the base reaches higher
        return egg.astype(np.float32), smooth_max(egg, base, 5.0).astype(np.float32)

    def _draw_scalp_and_skull(self, canvas: Canvas, points: Points, egg: FloatArray, cavity: FloatArray) -> None:
        x, y, z = points
        ends = (y / 84) ** 2
        bone = self._skull_mm * (0.86 + 0.3 * ends) + np.float32(0.7) * self._skull_noise.value(points)
        bone = np.maximum(bone, 2.6)
        temple = step(np.abs(x) - 40, 4) * step(18 - z, 7) * np.exp(-(((y + 25) / 24) ** 2))
        bone = bone * (1 - 0.45 * temple)
        neck = step(y - 30, 7) * step(-34 - z, 6)
        scalp = self._scalp_mm + np.float32(0.8) * self._scalp_noise.value(points) + 6.5 * temple + 13 * neck
        skin = egg - bone - scalp
        canvas.paint(t.SKIN, skin)
        canvas.paint(t.FAT, skin + 1.9)
        canvas.paint(t.MUSCLE, np.maximum(np.abs(egg - bone - 1.0) - 0.8, skin + 1.9))  # galea
        canvas.paint(t.MUSCLE, np.maximum(skin + 3.4, 2.2 - 9 * np.maximum(temple, neck)))
        canvas.paint(t.BONE, np.maximum(cavity - bone, skin + 3.0))
        outer = 1.5 + 0.12 * bone
        inner = 1.1 + 0.08 * bone
        spongy = np.maximum(inner - cavity, cavity - bone + outer)
        canvas.paint(t.DIPLOE, np.maximum(np.maximum(spongy, skin + 4.0), -28 - z))

    def _draw_face(self, canvas: Canvas, points: Points, cavity: FloatArray, egg: FloatArray) -> None:
        x, y, z = points
        skin_depth = egg - self._skull_mm - self._scalp_mm
        front = np.maximum(np.maximum(3.2 - cavity, skin_depth + 3.5), np.maximum(y + 8, z + 16))
        canvas.paint(t.MUSCLE, np.maximum(front, -2.2 * self._patches.value(points)))
        brow = np.maximum(np.abs(skin_depth + 8.5) - 3.2, np.maximum(np.maximum(y + 30, -30 - z), 2.5 - cavity))
        canvas.paint(t.BONE, brow)
        for sign in (-1.0, 1.0):
            cone = tube(points, [(sign * 33, -84, -40, 17), (sign * 31, -66, -40, 17), (sign * 12, -34, -38, 4.0)])
            canvas.paint(t.BONE, np.maximum(cone - 2.2, skin_depth + 6))
            canvas.paint(t.FAT, np.maximum(cone, skin_depth + 3.0))
            across = (x - sign * 31) + (y + 66) * np.float32(sign * 0.59)
            muscle = np.maximum(np.abs(cone + 3.4) - 1.5, 9 - np.abs(across) * 1.2)
            canvas.paint(t.MUSCLE, np.maximum(np.maximum(muscle, np.abs(z + 40) - 6), -70 - y))
            nerve = tube(points, [(sign * 31, -64, -40, 2.1), (sign * 12, -36, -38, 2.1)])
            canvas.paint(t.WHITE, nerve)
            canvas.paint(t.SKIN, ellipsoid(points, (sign * 32, -72, -40), (12.6, 12.6, 12.6)))
            canvas.paint(t.VITREOUS, ellipsoid(points, (sign * 32, -72, -40), (11.6, 11.6, 11.6)))
            canvas.paint(t.MUSCLE, ellipsoid(points, (sign * 32, -80.5, -40), (4.6, 2.2, 4.6)))
        middle = np.maximum(np.abs(x) - 12.5, np.maximum(np.abs(y + 61) - 23, z + 25))
        canvas.paint(t.BONE, np.maximum(middle, skin_depth + 6))
        cells = np.maximum(np.maximum(middle + 1.6, skin_depth + 9), 0.8 - 3.2 * np.abs(self._cells.value(points)))
        canvas.paint(t.AIR, np.maximum(cells, 0.6 - np.abs(x)))
        sphenoid = ellipsoid(points, (1.5, -24, -39), (13, 11, 10.5))
        canvas.paint(t.BONE, np.maximum(sphenoid - 2.0, 0.4 - cavity))
        canvas.paint(t.AIR, np.maximum(np.maximum(sphenoid, 0.6 - np.abs(x - 2 - 0.1 * y)), 1.5 - cavity))
        frontal = ellipsoid(points, (2.0, -88.5, -22), (19 * self._sinus, 4.2, 11 * self._sinus))
        canvas.paint(t.BONE, np.maximum(frontal - 2.2, skin_depth + 5))
        canvas.paint(t.AIR, np.maximum(np.maximum(frontal, 0.6 - np.abs(x + 2)), 1.2 - cavity))

    def _draw_petrous(self, canvas: Canvas, points: Points, egg: FloatArray) -> None:
        _, _, z = points
        inside = egg - self._skull_mm + 0.5
        cells = self._cells.value(points)
        for sign in (-1.0, 1.0):
            ridge = tube(points, [(sign * 60, 24, -43, 11), (sign * 38, 12, -42, 8), (sign * 13, -4, -44, 4.5)])
            canvas.paint(t.DENSE_BONE, np.maximum(ridge + 0.8 * self._patches.value(points), inside))
            mastoid = ellipsoid(points, (sign * 58, 24, -47), (9, 13, 13))
            canvas.paint(t.BONE, np.maximum(mastoid, inside))
            canvas.paint(t.AIR, np.maximum(np.maximum(mastoid + 2, inside + 2), 0.7 - 2.6 * np.abs(cells)))
            canal = tube(points, [(sign * 30, 6, -43, 2.4), (sign * 20, 3, -42, 2.8)])
            canvas.paint(t.CSF, np.maximum(canal, z + 38))
            ear = tube(points, [(sign * 80, 2, -46, 3.2), (sign * 46, 6, -45, 3.0)])
            canvas.paint(t.AIR, np.maximum(ear, z + 40))
