"""Geometry of the phantom: signed distances in mm (negative inside) and smooth random fields.

Axes everywhere: x to the patient's left, y to the back, z up (DICOM's patient axes), in mm from the head's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sccg_runtime.intensity import FloatArray

Points = tuple[FloatArray, FloatArray, FloatArray]
"""x, y, z in mm, three arrays of one shape (H, W), float32."""
Node = tuple[float, float, float, float]
"""x, y, z and radius in mm of one joint of a tube."""


class Waves:
    """A smooth random field: a sum of plane waves with random directions; mean 0, variance 1.

    Parameters
    ----------
    rng
        Draws directions, lengths and phases.
    count
        Number of waves.
    wavelength_mm
        (shortest, longest) wavelength.
    """

    def __init__(self, rng: np.random.Generator, count: int, wavelength_mm: tuple[float, float]) -> None:
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.uniform(*wavelength_mm, size=(count, 1))
        self._k = (2 * np.pi / length * direction).astype(np.float32)
        self._phase = rng.uniform(0, 2 * np.pi, size=count).astype(np.float32)
        self._scale = np.float32(np.sqrt(2 / count))

    def value(self, points: Points) -> FloatArray:
        """Field at ``points``, (H, W) float32."""
        total: FloatArray = np.cos(self._arguments(points)).sum(axis=0) * self._scale
        return total

    def sheet_distance(self, points: Points) -> FloatArray:
        """Approximate distance in mm to the surface where the field is zero, (H, W) float32, never negative."""
        arguments = self._arguments(points)
        value = np.cos(arguments).sum(axis=0)
        sine = np.sin(arguments).reshape(len(self._k), -1)
        slope = np.linalg.norm(self._k.T @ sine, axis=0).reshape(value.shape)
        typical = np.sqrt((self._k**2).sum() / 2)
        distance: FloatArray = np.abs(value) / np.maximum(slope, 0.5 * typical)
        return distance

    def _arguments(self, points: Points) -> FloatArray:
        stacked = np.stack(points).reshape(3, -1)
        arguments: FloatArray = (self._k @ stacked + self._phase[:, None]).reshape(-1, *points[0].shape)
        return arguments


def ellipsoid(
    points: Points, centre: tuple[float, float, float], semi: tuple[float, float, float], yaw_deg: float = 0.0
) -> FloatArray:
    """Signed distance to an ellipsoid (first order), turned by ``yaw_deg`` about z (x towards y).

    Parameters
    ----------
    points
        Where, in mm.
    centre, semi
        Centre and semi-axes along x, y, z, in mm.
    """
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    if yaw_deg:
        cosine, sine = np.float32(np.cos(np.radians(yaw_deg))), np.float32(np.sin(np.radians(yaw_deg)))
        x, y = cosine * x + sine * y, cosine * y - sine * x
    a, b, c = (np.float32(s) for s in semi)
    rho = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) / np.maximum(rho, 1e-3)
    distance: FloatArray = (rho - 1) / np.maximum(slope, np.float32(1 / max(semi)))
    return distance


def tube(points: Points, nodes: Sequence[Node], blend_mm: float = 2.0) -> FloatArray:
    """Signed distance to a tube through ``nodes`` whose radius changes linearly between them."""
    x, y, z = points
    result: FloatArray | None = None
    for (x0, y0, z0, r0), (x1, y1, z1, r1) in pairwise(nodes):
        dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
        along = ((x - x0) * dx + (y - y0) * dy + (z - z0) * dz) / (dx * dx + dy * dy + dz * dz)
        along = np.clip(along, 0, 1)
        part = np.sqrt((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 + (z - z0 - along * dz) ** 2)
        part = part - (r0 + along * (r1 - r0))
        result = part if result is None else smooth_min(result, part, blend_mm)
    if result is None:
        raise ValueError("a tube needs at least two nodes")
    return result.astype(np.float32)


def smooth_min(a: FloatArray, b: FloatArray, blend_mm: float) -> FloatArray:
    """Union of two shapes with a rounded seam of about ``blend_mm``."""
    share = np.maximum(blend_mm - np.abs(a - b), 0) / blend_mm
    union: FloatArray = np.minimum(a, b) - share * share * np.float32(blend_mm / 4)
    return union


def smooth_max(a: FloatArray, b: FloatArray, blend_mm: float) -> FloatArray:
    """Intersection of two shapes with a rounded seam of about ``blend_mm``."""
    return -smooth_min(-a, -b, blend_mm)


def step(values: FloatArray, width: float) -> FloatArray:
    """Smooth step from 0 (values far below 0) to 1 (far above), about ``4 * width`` wide."""
    risen: FloatArray = 0.5 * (1 + np.tanh(values / np.float32(2 * width)))
    return risen


def rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> FloatArray:
    """(3, 3) rotation matrix: about x, then y, then z."""
    p, r, w = np.radians((pitch_deg, roll_deg, yaw_deg))
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(r), 0, np.sin(r)], [0, 1, 0], [-np.sin(r), 0, np.cos(r)]])
    about_z = np.array([[np.cos(w), -np.sin(w), 0], [np.sin(w), np.cos(w), 0], [0, 0, 1]])
    matrix: FloatArray = (about_z @ about_y @ about_x).astype(np.float32)
    return matrix
