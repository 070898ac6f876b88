"""The inside of the simulated skull: folded cortex, white matter, ventricles, deep grey, lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sccg_runtime.intensity import FloatArray
from sccg_teacher_student.data import phantom_tissues as t
from sccg_teacher_student.data.phantom_canvas import Canvas
from sccg_teacher_student.data.phantom_hindbrain import Hindbrain, tentorium
from sccg_teacher_student.data.phantom_shapes import Node, Points, Waves, ellipsoid, tube


@dataclass(frozen=True, slots=True)
class Lesion:
    """A roundish lesion with oedema; position and sizes in mm."""

    centre: tuple[float, float, float]
    semi: tuple[float, float, float]
    oedema_mm: float


class Brain:
    """Brain of one case.

    Parameters
    ----------
    rng
        Draws what differs between cases.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._folds = Waves(rng, 26, (19, 30))
        self._fine_folds = Waves(rng, 20, (13, 19))
        self._depth = Waves(rng, 12, (28, 60))
        self._rough = Waves(rng, 14, (8, 18))
        self._midline = Waves(rng, 5, (70, 150))
        self._lobules = Waves(rng, 10, (14, 30))
        self._atrophy = float(rng.beta(1.6, 2.6))
        size = 0.78 + 0.55 * self._atrophy + rng.normal(0, 0.07)
        self._ventricle = {-1.0: float(size * rng.uniform(0.88, 1.12)), 1.0: float(size * rng.uniform(0.88, 1.12))}
        self._jitter = {side: rng.normal(0, 1, size=(4, 3)) for side in (-1.0, 1.0)}
        self._calcified = {side: float(rng.uniform(1.4, 3.0)) * bool(rng.random() < 0.6) for side in (-1.0, 1.0)}
        self._pineal_mm = float(rng.uniform(1.2, 2.4)) * bool(rng.random() < 0.5)
        self._lesion = _draw_lesion(rng)
        self._hindbrain = Hindbrain(rng, self._atrophy)

    def draw(self, canvas: Canvas, points: Points, cavity: FloatArray) -> None:
        """Paint everything inside ``cavity`` (signed distance in mm)."""
        middle = points[0] - np.float32(0.9) * self._midline.value(points)
        canvas.paint(t.DURA, cavity)
        canvas.paint(t.CSF, cavity + 0.9)
        tent = tentorium(points)
        self._draw_cerebrum(canvas, points, middle, cavity, tent)
        self._draw_deep_grey(canvas, points)
        self._draw_lesion(canvas, points, cavity)
        if float(points[2].min()) < 6:
            self._hindbrain.draw(canvas, points, cavity, tent)
        self._draw_ventricles(canvas, points, middle)
        self._draw_falx(canvas, points, middle, cavity, tent)

    def _draw_cerebrum(
        self, canvas: Canvas, points: Points, middle: FloatArray, cavity: FloatArray, tent: FloatArray
    ) -> None:
        y = points[1]
        wide = np.float32(self._atrophy)
        surface = -(cavity + 1.4 + 1.3 * wide + 0.5 * self._rough.value(points))
        pial = surface
        for distance, half_width in self._fissures(points, middle):
            pial = np.minimum(pial, distance - half_width)
        pial = np.minimum(pial, np.where(y > 12, np.abs(tent) - 0.8, np.float32(99)))
        for waves, deepest, spread, open_mm in ((self._folds, 14.0, 4.5, 0.45), (self._fine_folds, 7.0, 3.5, 0.3)):
            depth = deepest + spread * self._depth.value(points)
            sheet = waves.sheet_distance(_towards_surface(points))
            below = np.maximum(surface - depth, 0)
            half = open_mm + (0.3 + 0.8 * wide) * np.clip(1 - surface / 12, 0, 1)
            pial = np.minimum(pial, np.where(depth > 2, np.sqrt(sheet**2 + below**2) - half, np.float32(99)))
        canvas.paint(t.GREY, -pial)
        ribbon = 3.3 + 0.5 * self._rough.value(points)
        canvas.paint(t.WHITE, ribbon - pial)

    def _fissures(self, points: Points, middle: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Distance to, and half width of: the fissure between the hemispheres, both Sylvian fissures, both insulae."""
        x, y, z = points
        wide, bend, rough = np.float32(self._atrophy), self._midline.value(points), self._rough.value(points)
        callosum = -ellipsoid(points, (0, 3, 6), (200, 41, 25))
        between = np.sqrt(middle**2 + np.maximum(callosum, 0) ** 2)
        found = [(between, np.full_like(x, 1.0 + 0.8 * wide))]
        for sign in (-1.0, 1.0):
            lateral = np.float32(sign) * x
            line = -14 + 0.5 * (z - 2) - 0.12 * (lateral - 50) + 2.0 * bend + 0.9 * rough
            outside = np.maximum(np.abs(z + 1) - 15, 0)
            sylvian = np.sqrt(((y - line) * 0.9) ** 2 + np.maximum(39 - lateral, 0) ** 2 + outside**2)
            found.append((sylvian, 1.4 + 1.5 * wide - 0.02 * (lateral - 39)))
            along = np.maximum(np.abs(y - line - 3) - 15, 0)
            bow = lateral - 39 + 0.008 * (y - line) ** 2 + 1.5 * rough
            found.append(
                (np.sqrt(bow**2 + along**2 + np.maximum(np.abs(z - 1) - 13, 0) ** 2), np.full_like(x, 1.1 + 0.9 * wide))
            )
        return found

    def _draw_deep_grey(self, canvas: Canvas, points: Points) -> None:
        rough = np.float32(0.5) * self._rough.value(points)
        for side in (-1.0, 1.0):
            j = self._jitter[side]
            v = 4.5 * (self._ventricle[side] - 0.8)
            caudate = tube(
                points,
                [
                    (side * (13 + v), -24 + j[0, 1], 6, 5.6),
                    (side * (15 + v), -8, 17, 3.6),
                    (side * (20 + v), 18, 22, 2),
                ],
            )
            canvas.paint(t.DEEP_GREY, caudate + rough)
            lentiform = ellipsoid(points, (side * (26 + 0.5 * j[1, 0]), -5 + j[1, 1], 2), (7.2, 17, 12), side * 13)
            canvas.paint(t.DEEP_GREY, lentiform + rough)
            canvas.paint(t.PALLIDUM, ellipsoid(points, (side * 20.5, -1 + j[1, 1], 1), (4.0, 10, 7), side * 24) + rough)
            thalamus = ellipsoid(points, (side * (11 + 0.5 * j[2, 0]), 13 + j[2, 1], 5), (9, 15.5, 11), side * -24)
            canvas.paint(t.DEEP_GREY, thalamus + rough)
            canvas.paint(
                t.GREY, np.abs(np.abs(points[0]) - np.float32(36.5) - rough) - np.float32(0.5) + _window(points, side)
            )  # claustrum

    def _draw_lesion(self, canvas: Canvas, points: Points, cavity: FloatArray) -> None:
        if self._lesion is None:
            return
        core = ellipsoid(points, self._lesion.centre, self._lesion.semi) + np.float32(1.6) * self._rough.value(points)
        around = core - np.float32(self._lesion.oedema_mm) * (1 + np.float32(0.35) * self._lobules.value(points))
        canvas.paint(t.EDEMA, np.maximum(np.maximum(around, cavity + 6.0), _not_white(canvas)))
        canvas.paint(t.LESION, np.maximum(core, cavity + 3.5))

    def _draw_ventricles(self, canvas: Canvas, points: Points, middle: FloatArray) -> None:
        _, y, z = points
        placed = (middle, y, z)
        for side in (-1.0, 1.0):
            v = self._ventricle[side]
            j = self._jitter[side][3]
            body: list[Node] = [
                (side * (13 + 2 * v), -38 + j[0], 3, 1.6 * v),
                (side * (4.4 + 4.0 * v), -25, 8, 4.6 * v),
                (side * (1.9 + 4.4 * v), -9, 15, 4.4 * v),
                (side * (4.0 + 4.6 * v), 8, 20, 4.8 * v),
                (side * (10 + 4.6 * v), 23, 18, 5.2 * v),
                (side * 24, 36 + j[1], 8, 7.0 * v),
                (side * 22, 56 + 2 * j[2], 3, 1.6 * v),
            ]
            horn: list[Node] = [body[5], (side * 34, 20, -9, 2.9 * v), (side * 29, -3, -22, 1.9 * v)]
            canvas.paint(t.CSF, np.minimum(tube(placed, body, 3), tube(placed, horn, 3)))
            if self._calcified[side]:
                plexus = ellipsoid(placed, (side * 24, 37, 8), (2.4, 5.0, 7.5), side * 20)
                canvas.paint(t.GREY, plexus)
                speck = ellipsoid(placed, (side * 24, 37, 8), (self._calcified[side], 1.3 * self._calcified[side], 6))
                canvas.paint(t.CALCIFICATION, speck + np.float32(0.5) * self._rough.value(points))
        third = 1.1 + 2.4 * self._ventricle[1.0] * (0.35 + 0.65 * self._atrophy)
        canvas.paint(t.CSF, ellipsoid(placed, (0, 4, -4), (third, 15, 13)))
        fourth = ellipsoid(placed, (0, 23, -42), (6 + 3 * self._ventricle[-1.0], 4.2 + self._ventricle[-1.0], 12))
        canvas.paint(t.CSF, np.add(fourth, np.abs(middle) * np.float32(0.15), dtype=np.float32))
        canvas.paint(t.CSF, ellipsoid(placed, (0, 29, -6), (12 + 4 * self._atrophy, 4.5, 9)))  # quadrigeminal cistern
        if self._pineal_mm:
            canvas.paint(t.GREY, ellipsoid(placed, (0, 25.5, 1), (3.4, 4.2, 5)))
            r = self._pineal_mm
            canvas.paint(t.CALCIFICATION, ellipsoid(placed, (0.5, 25.5, 1), (r, r, 5)))

    def _draw_falx(
        self, canvas: Canvas, points: Points, middle: FloatArray, cavity: FloatArray, tent: FloatArray
    ) -> None:
        _, _, z = points
        clear = -ellipsoid(points, (0, 3, 2), (200, 52, 38))
        sheet = np.maximum(np.abs(middle) - 0.55, np.maximum(clear, np.maximum(cavity - 0.5, 3 - tent)))
        canvas.paint(t.DURA, sheet)
        back = np.maximum(-(cavity + 7.5 - 1.1 * np.abs(middle)), np.abs(middle) - 5.5)
        vault = np.maximum(np.maximum(cavity, back), np.maximum(-20 - z, 20 - points[1] - 0.9 * z))
        canvas.paint(t.BLOOD, vault)


def _towards_surface(points: Points) -> Points:
    """Points drawn out towards the brain's surface, so that folds stand upright on it."""
    x, y, z = points
    rho = np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 77) ** 2)
    factor = (np.float32(0.35) + np.float32(0.65) / np.maximum(rho, np.float32(0.45))).astype(np.float32)
    return x * factor, y * factor, z * factor


def _window(points: Points, side: float) -> FloatArray:
    """0 where the claustrum may be on one side, large elsewhere."""
    x, y, z = points
    inside = (np.sign(x) == side) & (np.abs(y + 5) < 15) & (np.abs(z - 2) < 10)
    return np.where(inside, np.float32(0), np.float32(99))


def _not_white(canvas: Canvas) -> FloatArray:
    """Negative where white matter is: oedema spares the cortex."""
    return np.where(canvas.labels == t.WHITE.index, np.float32(-99), np.float32(0.3))


def _draw_lesion(rng: np.random.Generator) -> Lesion | None:
    there = rng.random() < 0.45
    side = rng.choice([-1.0, 1.0])
    x, y, z = side * rng.uniform(20, 40), rng.uniform(-45, 50), rng.uniform(-4, 42)
    radius = rng.uniform(6, 14)
    semi = radius * rng.uniform(0.8, 1.25, size=3)
    lesion = Lesion(
        (float(x), float(y), float(z)), (float(semi[0]), float(semi[1]), float(semi[2])), float(rng.uniform(3, 9))
    )
    return lesion if there else None
