"""Simulated heads: paired CT in HU and T2-weighted MR, from a seed. Enough for tests, the demo and HU metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sccg_bench.protocols import Pair
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, linear_to_unit, mr_white
from sccg_teacher_student.data.phantom_anatomy import Z_RANGE_MM, Anatomy
from sccg_teacher_student.data.phantom_canvas import Canvas
from sccg_teacher_student.data.phantom_shapes import Waves
from sccg_teacher_student.data.phantom_tissues import LabelArray
from sccg_teacher_student.data.settings import MR_ASSUMED

FIELD_OF_VIEW_MM = 230.4
MR_SCALE = 1600.0
"""Stored MR value of signal 1; CSF comes out near 960."""
_CT_NOISE_HU = 3.4
_MR_NOISE = 0.008
_PSF_MM = 0.55


@dataclass(frozen=True, slots=True)
class PhantomCase:
    """One simulated patient. Volumes are (Z, H, W): slices from feet to head, rows to the back, columns to the left.

    Attributes
    ----------
    labels
        uint8, index into :data:`sccg_teacher_student.data.phantom_tissues.TISSUES`.
    ct_hu
        float32, whole Hounsfield units, -1024 at least.
    mr
        float32, whole numbers from 0, arbitrary unit.
    spacing_mm
        (row, column) distance of pixel centres.
    slice_spacing_mm
        Distance of slices, and their thickness.
    """

    labels: LabelArray
    ct_hu: FloatArray
    mr: FloatArray
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float


def phantom_case(
    case_index: int,
    seed: int,
    size: tuple[int, int] = (256, 256),
    slices: int = 24,
    spacing_mm: tuple[float, float] | None = None,
) -> PhantomCase:
    """Simulate one patient, the same for the same arguments.

    Parameters
    ----------
    case_index
        Number of the patient, from 0; each has its own head.
    seed
        Of the whole phantom.
    size
        (rows, columns), multiples of 4, at least 16.
    slices
        Number of axial slices from the orbits to the vertex.
    spacing_mm
        (row, column) distance of pixel centres; default: 230.4 mm over the shorter side.

    Raises
    ------
    InputError
        A number is out of range.
    """
    if case_index < 0 or seed < 0 or slices < 1:
        raise InputError("phantom: case and seed must not be negative, and there must be at least one slice")
    if min(size) < 16 or any(side % 4 for side in size):
        raise InputError(f"phantom: size {size[0]}x{size[1]} must be multiples of 4, at least 16")
    spacing = spacing_mm or (FIELD_OF_VIEW_MM / min(size),) * 2
    if not all(0.1 <= value <= 20 for value in spacing):
        raise InputError(f"phantom: spacing {spacing[0]:g} x {spacing[1]:g} mm is not between 0.1 and 20 mm")
    low, high = Z_RANGE_MM
    step_mm = (high - low) / slices
    rng = np.random.default_rng([seed, case_index])
    anatomy, scanner = Anatomy(rng), _Scanner(rng, size, spacing)
    labels, ct_hu, mr = [], [], []
    for number in range(slices):
        canvas = anatomy.draw(low + (number + 0.5) * step_mm, size, spacing)
        labels.append(canvas.labels)
        ct_hu.append(scanner.ct(canvas))
        mr.append(scanner.mr(canvas, low + (number + 0.5) * step_mm))
    return PhantomCase(np.stack(labels), np.stack(ct_hu), np.stack(mr), spacing, step_mm)


def phantom_pairs(
    patients: int, slices: int = 8, size: int = 64, seed: int = 0, *, low_hu: float = -1024, high_hu: float = 2000
) -> Iterator[Pair]:
    """Simulated pairs without a disk: (1, size, size) float32 in [-1, 1], patient by patient.

    CT is linear from ``low_hu`` (-1) to ``high_hu`` (+1); MR as :data:`MR_ASSUMED` has it.

    Example
    -------
    >>> pairs = list(phantom_pairs(2, slices=3, size=64))
    >>> len(pairs), pairs[0].mr.shape
    (6, (1, 64, 64))
    """
    for index in range(patients):
        case = phantom_case(index, seed, (size, size), slices)
        white = mr_white(case.mr, MR_ASSUMED)
        for number in range(slices):
            mr = linear_to_unit(case.mr[number][np.newaxis], 0, white)
            ct = linear_to_unit(case.ct_hu[number][np.newaxis], low_hu, high_hu)
            yield Pair(case=case_name(index), slice=f"{number + 1:04d}", mr=mr, ct=ct)


def case_name(index: int) -> str:
    """``case01`` for index 0."""
    return f"case{index + 1:02d}"


class _Scanner:
    """Turns drawn tissue into images: blur, texture, bias and noise."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
        self._noise = np.random.default_rng(rng.integers(2**63))
        self._bias = Waves(rng, 5, (260, 420))
        self._bias_strength = float(rng.uniform(0.05, 0.13))
        self._spacing = spacing_mm
        rows, columns = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing_mm, strict=True))
        self._y, self._x = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij")

    def ct(self, canvas: Canvas) -> FloatArray:
        """(H, W) float32 in whole HU."""
        texture = self._correlated(canvas.hu.shape, 1.0) * canvas.texture_hu
        blurred = self._blur(canvas.hu + texture, _PSF_MM)
        noisy = blurred + np.float32(_CT_NOISE_HU) * self._correlated(canvas.hu.shape, 0.6)
        whole: FloatArray = np.clip(np.rint(noisy), -1024, 3071).astype(np.float32)
        return whole

    def mr(self, canvas: Canvas, z_mm: float) -> FloatArray:
        """(H, W) float32, whole numbers from 0."""
        place = (self._x, self._y, np.full_like(self._x, z_mm))
        bias = np.exp(np.float32(self._bias_strength) * self._bias.value(place))
        signal = self._blur(canvas.signal * bias, _PSF_MM)
        real, imaginary = self._noise.normal(0, _MR_NOISE, size=(2, *signal.shape)).astype(np.float32)
        magnitude = np.hypot(signal + real, imaginary)  # Rician
        whole: FloatArray = np.rint(MR_SCALE * magnitude).astype(np.float32)
        return whole

    def _blur(self, image: FloatArray, sigma_mm: float) -> FloatArray:
        sigma = [sigma_mm / spacing for spacing in self._spacing]
        blurred: FloatArray = ndimage.gaussian_filter(image, sigma, mode="nearest")
        return blurred

    def _correlated(self, shape: tuple[int, ...], sigma_px: float) -> FloatArray:
        """Noise of standard deviation 1 whose grains are about ``sigma_px`` wide."""
        white = self._noise.standard_normal(shape, dtype=np.float32)
        grains = ndimage.gaussian_filter(white, sigma_px, mode="wrap")
        scaled: FloatArray = grains * np.float32(1 / max(float(grains.std()), 1e-6))
        return scaled
