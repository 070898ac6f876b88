"""Views: the inputs that the teacher labels. Every slice once as it is, then augmented ones, each from its number.

The teacher answers any input, so the training set is as large as the labelling time allows. Slices stay whole,
because a teacher with instance norm depends on the whole slice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sccg_runtime.intensity import FloatArray

RECIPE = 6  # part of the cache's key: raise it whenever a view changes
BACKGROUND = -1.0
# Shares of the augmented views, after every slice was taken once as it is.
MIX: dict[str, float] = {"deform": 0.60, "contrast": 0.20, "average": 0.12, "mix": 0.08}
# Every eighth augmented view is made smaller by such a factor: a nearly empty slice, as at the vertex, is rare in a
# series, and a teacher that normalises by the whole slice treats it unlike all others.
SMALL_EVERY, SMALL = 8, (0.55, 0.9)


@dataclass(frozen=True, slots=True)
class Base:
    """One slice that views are made from.

    Attributes
    ----------
    case, slice
        Where it comes from.
    load
        Gives (input, reference): (H, W) float32 in [-1, 1] each, the reference None where there is no pair.
    synthetic
        The input is itself a network's output: smoother than any scan, so it gets a scan's grain, and no more than
        half of the augmented views are made from such slices.
    """

    case: str
    slice: str
    load: Callable[[], tuple[FloatArray, FloatArray | None]]
    synthetic: bool = False


def make_view(bases: Sequence[Base], seed: int, number: int) -> tuple[FloatArray, FloatArray | None]:
    """View ``number`` (from 0) of the sequence that ``seed`` stands for.

    Returns
    -------
    (input, reference), (H, W) float32 in [-1, 1] each; reference None where the base has none or the view mixes
    slices.
    """
    rng = np.random.default_rng((seed, number))
    if number < len(bases):
        order = np.random.default_rng(seed).permutation(len(bases))
        return _loaded(bases[int(order[number])], rng)
    first = _pick(bases, rng)
    if bases[first].synthetic and rng.random() < 0.5 and not all(base.synthetic for base in bases):
        while bases[first].synthetic:
            first = _pick(bases, rng)
    image, reference = _loaded(bases[first], rng)
    kind = str(rng.choice(list(MIX), p=list(MIX.values())))
    if kind == "average":
        image, reference = (image + _neighbour(bases, first, rng)) / np.float32(2), None
    elif kind == "mix":
        image, reference = _mix(image, bases[int(rng.integers(len(bases)))].load()[0], rng), None
    small = number % SMALL_EVERY == 0
    if kind == "contrast" and not small:
        return contrast(image, rng), reference
    coordinates = deformation(image.shape, rng, rng.uniform(*SMALL) if small else 1.0)
    warped = warp(image, coordinates)
    if rng.random() < 0.25:
        warped = contrast(warped, rng)
    return warped, None if reference is None else warp(reference, coordinates)


def _loaded(base: Base, rng: np.random.Generator) -> tuple[FloatArray, FloatArray | None]:
    image, reference = base.load()
    return (grain(image, rng) if base.synthetic else image), reference


def grain(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add a scan's noise, slightly correlated, to the foreground of (H, W) in [-1, 1]."""
    noise = ndimage.gaussian_filter(rng.normal(0, 1, image.shape), rng.uniform(0.3, 0.8))
    strength = rng.uniform(0.02, 0.10) / max(float(noise.std()), 1e-6)
    result: FloatArray = np.clip(image + strength * noise * (image > -0.9), -1, 1).astype(np.float32)
    return result


def _pick(bases: Sequence[Base], rng: np.random.Generator) -> int:
    """A random slice; one draw in three is moved to an end of its case: skull base and vertex are the hard ones."""
    index = int(rng.integers(len(bases)))
    if rng.random() < 1 / 3:
        step = int(rng.choice([-1, 1]))
        while 0 <= index + step < len(bases) and bases[index + step].case == bases[index].case:
            index += step
        index -= step * int(rng.integers(3))
        index = min(max(index, 0), len(bases) - 1)
    return index


def deformation(shape: tuple[int, ...], rng: np.random.Generator, size: float = 1.0) -> npt.NDArray[np.float64]:
    """Sampling coordinates (2, H, W) in pixels: rotation, anisotropic scale, shift and a smooth elastic field.

    What is sampled there is ``size`` times as large, give or take 16 %.
    """
    rows, columns = shape
    angle = np.deg2rad(rng.uniform(-12, 12))
    scale = size * rng.uniform(0.84, 1.16, 2)
    flip = -1.0 if rng.random() < 0.3 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([1 / scale[0], flip / scale[1]])
    centre = np.array([(rows - 1) / 2, (columns - 1) / 2])
    shift = rng.uniform(-0.04, 0.04, 2) * (rows, columns)
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")).astype(np.float64)
    moved = np.tensordot(matrix, grid - centre[:, None, None], axes=1) + (centre + shift)[:, None, None]
    cells = int(rng.integers(4, 9))
    strength = rng.uniform(0, 0.012) * rows
    coarse = rng.normal(0, strength, (2, cells, cells))
    field = [
        ndimage.zoom(part, (rows / cells, columns / cells), order=3, grid_mode=True, mode="nearest") for part in coarse
    ]
    result: npt.NDArray[np.float64] = moved + np.stack(field)
    return result


def warp(image: FloatArray, coordinates: npt.NDArray[np.float64]) -> FloatArray:
    """Sample (H, W) at ``coordinates`` with cubic splines, which keep detail; outside is background."""
    sampled: FloatArray = ndimage.map_coordinates(image, coordinates, order=3, mode="constant", cval=BACKGROUND)
    return sampled.clip(-1, 1)


def contrast(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Gamma, a smooth bias field and noise, on the foreground's scale; (H, W) in [-1, 1]."""
    unit = np.clip((image + 1) / 2, 0, 1) ** np.exp(rng.uniform(-0.25, 0.25))
    rows, columns = image.shape
    bias = ndimage.zoom(rng.normal(0, 0.08, (3, 3)), (rows / 3, columns / 3), order=3, grid_mode=True, mode="nearest")
    noisy = unit * np.exp(bias) + rng.normal(0, rng.uniform(0, 0.02), image.shape) * (unit > 0.02)
    result: FloatArray = (np.clip(noisy, 0, 1) * 2 - 1).astype(np.float32)
    return result


def _neighbour(bases: Sequence[Base], index: int, rng: np.random.Generator) -> FloatArray:
    """The slice before or after in the same case, or the slice itself where there is none."""
    step = int(rng.choice([-1, 1]))
    other = index + step
    if not 0 <= other < len(bases) or bases[other].case != bases[index].case:
        other = index
    return bases[other].load()[0]


def _mix(first: FloatArray, second: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Upper part of one slice and lower part of another with a soft edge, or a weighted sum of both."""
    rows = first.shape[0]
    if rng.random() < 0.5:
        weight: Any = rng.beta(0.4, 0.4)
    else:
        edge = rng.uniform(0.3, 0.7) * rows
        weight = 1 / (1 + np.exp(np.clip((np.arange(rows)[:, None] - edge) / 4, -30, 30)))
    mixed: FloatArray = (weight * first + (1 - weight) * second).astype(np.float32)
    return mixed
