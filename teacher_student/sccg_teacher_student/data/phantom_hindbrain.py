"""Below the tentorium of the simulated head: cerebellum, brainstem and the cisterns around them."""

from __future__ import annotations

import numpy as np

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data import phantom_tissues as t
from sccg_teacher_student.data.phantom_canvas import Canvas
from sccg_teacher_student.data.phantom_shapes import Points, Waves, ellipsoid, smooth_max, step, tube

_FOLIA_MM = 4.6


class Hindbrain:
    """Cerebellum and brainstem of one case.

    Parameters
    ----------
    rng
        Draws what differs between cases.
    atrophy
        0 (tight) to 1 (wide cisterns).
    """

    def __init__(self, rng: np.random.Generator, atrophy: float) -> None:
        self._depth = Waves(rng, 10, (28, 60))
        self._lobules = Waves(rng, 10, (14, 30))
        self._atrophy = atrophy

    def draw(self, canvas: Canvas, points: Points, cavity: FloatArray, tent: FloatArray) -> None:
        """Paint everything below the tentorium; ``cavity`` and ``tent`` are signed distances in mm."""
        x, y, _ = points
        below = np.maximum(tent, np.float32(0.55) * np.abs(x) - y - 6)
        canvas.paint(t.CSF, np.maximum(below, cavity + np.float32(0.9)))
        lobules = self._lobules.value(points)
        self._draw_cerebellum(canvas, points, cavity, below, lobules)
        self._draw_stem(canvas, points, cavity, lobules)

    def _draw_cerebellum(
        self, canvas: Canvas, points: Points, cavity: FloatArray, below: FloatArray, lobules: FloatArray
    ) -> None:
        x, y, z = points
        shape = ellipsoid(points, (0, 40, -44), (58, 41, 46))
        room = smooth_max(smooth_max(shape, below + np.float32(1.3), 3), cavity + np.float32(2.0), 3)
        notch = np.float32(0.55) * np.maximum(8 - np.abs(x), 0) * step(y - 58, 4)
        depth = -(room + notch)
        bend = 0.55 * y + 0.016 * x**2 - 0.35 * z + 1.6 * lobules
        folia = np.abs(np.sin(np.pi * bend / _FOLIA_MM)) * np.float32(_FOLIA_MM / np.pi)
        cut = np.maximum(depth - 11 - 5 * self._depth.value(points), 0)
        pial = np.minimum(depth, np.sqrt(folia**2 + cut**2) - np.float32(0.25))
        canvas.paint(t.GREY, -np.maximum(pial, np.minimum(depth, np.float32(0.2))))
        canvas.paint(t.CSF, np.maximum(np.float32(1.5) * pial + np.float32(0.2), np.float32(0.4) - depth))
        canvas.paint(t.WHITE, 9.5 - depth + 2.2 * lobules - 0.05 * np.abs(x))
        canvas.paint(t.WHITE, np.maximum(3 - pial, 4 - depth))

    def _draw_stem(self, canvas: Canvas, points: Points, cavity: FloatArray, lobules: FloatArray) -> None:
        x, y, z = points
        stem = tube(points, [(0, 9, -15, 13.5), (0, 6, -27, 14), (0, 5, -42, 15.5), (0, 13, -62, 9)], 6)
        peduncles = np.exp(-((x / 5) ** 2) - ((y + 5) / 7) ** 2) * step(z + 33, 2)
        stem = stem + np.float32(2.5) * peduncles
        star = ellipsoid(points, (0, -13, -24), (14, 11, 8))
        around = np.minimum(stem - np.float32(2.6 + 1.2 * self._atrophy), star)
        canvas.paint(t.CSF, np.maximum(around, np.maximum(cavity + 1, z + 12)))
        for sign in (-1.0, 1.0):
            valley = tube(points, [(0, -14, -22, 3.5), (sign * 22, -26, -20, 2.6), (sign * 44, -30, -16, 2.2)])
            canvas.paint(t.CSF, np.maximum(valley, cavity + 1))
        canvas.paint(t.WHITE, np.maximum(stem, z + 9))
        canvas.paint(t.DEEP_GREY, np.maximum(stem + np.float32(5.5) + 2 * lobules, z + 11))
        basilar = tube(points, [(0, -11, -28, 1.7), (1, -11.5, -46, 1.9)])
        canvas.paint(t.BLOOD, np.maximum(basilar, z + 20))


def tentorium(points: Points) -> FloatArray:
    """Signed distance in mm to the tentorium, negative below it."""
    x, y, z = points
    height = -5 - 0.5 * np.abs(x) - 0.0042 * (y - 28) ** 2
    return ((z - height) / np.float32(1.16)).astype(np.float32)
