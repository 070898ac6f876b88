"""Quality against the reference and drift against teacher and FP32 network, from arrays.

Reference, teacher and FP32 network may each be missing; their figures are then None. All masks come from the
reference, or where that is missing from the teacher's output, or from the FP32 network's, so that every model of a
run is judged by the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sccg_bench import highpass
from sccg_bench.aggregate import Figures, PatientScores, SliceScores, Summary, landmarks, summarise
from sccg_bench.hu import hu_scores, sees_air_and_bone
from sccg_bench.masks import (
    TissueLevels,
    air_mask,
    bone_mask,
    dilated,
    foreground,
    head_mask,
    otsu_level,
    overlap,
    soft_mask,
)
from sccg_bench.metrics import Closeness, bias_u8, closeness, mae_u8, worst_mae_u8
from sccg_bench.protocols import Pair
from sccg_bench.scale import Image, Mask, to_u8
from sccg_bench.spot import Spot, largest_spot
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Intensity

TISSUES = ("air", "soft", "bone", "lesion")
_BIASED = ("soft", "bone", "lesion")
QUALITY = (
    *("psnr_db", "ssim", "mae_u8", "iou_foreground", "iou_bone", "psnr_head_db", "ssim_head", "mae_head_u8"),
    *(f"mae_{tissue}_u8" for tissue in TISSUES),
)
DETAIL = ("hf_ratio", "hf_corr", "phase_ratio", *(f"bias_{tissue}_u8" for tissue in _BIASED))
_CLOSE = ("psnr_db", "ssim", "mae_u8", "psnr_head_db", "ssim_head")
DRIFT = (
    *("delta_psnr_db", "delta_ssim", "delta_mae_u8", "delta_iou_foreground", "delta_iou_bone"),
    *(f"to_teacher_{name}" for name in _CLOSE),
    *("to_teacher_worst5_mae_u8", "to_teacher_spot_u8"),
    *(f"to_teacher_mae_{tissue}_u8" for tissue in TISSUES),
)
ENGINE_DRIFT = (
    *(f"engine_to_fp32_{name}" for name in _CLOSE),
    *("engine_delta_psnr_db", "engine_delta_ssim", "engine_delta_mae_u8"),
)


@dataclass(frozen=True, slots=True)
class QualityResult:
    """All figures of one model.

    Attributes
    ----------
    summary
        Means over patients, per patient, and counts.
    slices
        Figures of every slice, in the order of the pairs.
    detail_against
        What ``hf_*``, ``phase_ratio`` and ``bias_*`` compare with: ``"teacher"``, or ``"reference"`` for the teacher
        itself and where no teacher is known; None where neither exists.
    """

    summary: Summary
    slices: tuple[SliceScores, ...]
    detail_against: str | None

    @property
    def patients(self) -> tuple[PatientScores, ...]:
        """Means per patient."""
        return self.summary.patients

    @property
    def landmarks(self) -> dict[str, SliceScores]:
        """Worst, median and best slice, and that of the largest local difference."""
        return landmarks(self.slices)


class Judge:
    """Holds what all models of a run are compared with: references, teacher outputs, masks.

    Parameters
    ----------
    pairs
        The slices, in order.
    direction
        Says which of the two is input and which is reference.
    teacher_outputs
        One (1, H, W) in [-1, 1] per pair, or None.
    ct
        Intensity of the CT slices (input or output); None is treated as ``display``.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        direction: Direction,
        teacher_outputs: Sequence[FloatArray] | None = None,
        ct: Intensity | None = None,
    ) -> None:
        self._pairs = list(pairs)
        self._direction = direction
        self._output_is_ct = modalities(direction)[1] == "CT"
        self._teacher = teacher_outputs
        self._ct = ct
        self._levels = TissueLevels.of(ct)
        self._teacher_scores: dict[int, Figures] = {}

    def judge(
        self, outputs: Sequence[FloatArray], fp32_outputs: Sequence[FloatArray] | None = None, is_teacher: bool = False
    ) -> QualityResult:
        """Figures of one model.

        Parameters
        ----------
        outputs
            (1, H, W) in [-1, 1], one per pair.
        fp32_outputs
            The same of its FP32 network, if this is an exported engine.
        is_teacher
            The outputs are the teacher's own: detail is compared with the reference, and there is no drift.

        Raises
        ------
        InputError
            The number or a shape of the outputs does not fit the pairs.
        """
        for label, arrays in (("model", outputs), ("teacher", self._teacher), ("FP32 network", fp32_outputs)):
            if arrays is not None:
                self._check(label, arrays)
        slices = [
            self._judge_slice(index, to_u8(outputs[index]), fp32_outputs, is_teacher)
            for index in range(len(self._pairs))
        ]
        with_reference = any(pair.reference(self._direction) is not None for pair in self._pairs)
        against = "teacher" if self._teacher is not None and not is_teacher else "reference" if with_reference else None
        return QualityResult(summarise(slices, self._volumes(outputs)), tuple(slices), against)

    def _judge_slice(
        self, index: int, output: Image, fp32_outputs: Sequence[FloatArray] | None, is_teacher: bool
    ) -> SliceScores:
        pair = self._pairs[index]
        given = pair.reference(self._direction)
        reference = None if given is None else to_u8(given)
        teacher = None if self._teacher is None else to_u8(self._teacher[index])
        fp32 = None if fp32_outputs is None else to_u8(fp32_outputs[index])
        anchor = next((image for image in (reference, teacher, fp32) if image is not None), output)
        head = head_mask(anchor)
        around = dilated(head)
        tissues = self._tissues(pair, anchor, head)

        quality: Figures = dict.fromkeys(QUALITY + DETAIL)
        counted = ["lesion"] if "lesion" in tissues and tissues["lesion"].any() else []
        if reference is not None:
            close = closeness(output, reference, around)
            ious, empty = self._overlaps(output, reference)
            quality |= _figures(close, QUALITY) | ious
            quality |= {f"mae_{name}_u8": mae_u8(output, reference, mask) for name, mask in tissues.items()}
            counted += empty
            if close.capped:
                counted.append("capped")
        else:
            counted.append("no_reference")
        partner = teacher if teacher is not None and not is_teacher else reference
        if partner is not None:
            bands = highpass.high_pass(output), highpass.high_pass(partner)
            quality["hf_ratio"] = highpass.energy_ratio(*bands, around)
            quality["hf_corr"] = highpass.correlation(*bands, around)
            quality["phase_ratio"] = highpass.phase_ratio(output, partner)
            for name in tissues.keys() & set(_BIASED):
                quality[f"bias_{name}_u8"] = bias_u8(output, partner, tissues[name])

        drift: Figures = {}
        spot: Spot | None = None
        if teacher is not None and not is_teacher:
            drift = dict.fromkeys(DRIFT)
            drift |= _prefixed("to_teacher_", _figures(closeness(output, teacher, around), _CLOSE))
            drift["to_teacher_worst5_mae_u8"] = worst_mae_u8(output, teacher, around)
            spot = largest_spot(output, teacher, around)
            drift["to_teacher_spot_u8"] = None if spot is None else abs(spot.difference_u8)
            drift |= {f"to_teacher_mae_{name}_u8": mae_u8(output, teacher, mask) for name, mask in tissues.items()}
            if reference is not None:
                base = self._teacher_scores.get(index)
                if base is None:
                    base = _figures(closeness(teacher, reference, around), QUALITY)
                    base |= self._overlaps(teacher, reference)[0]
                    self._teacher_scores[index] = base
                compared = ("psnr_db", "ssim", "mae_u8", "iou_foreground", "iou_bone")
                drift |= _differences("delta_", quality, base, compared)
        engine: Figures = {}
        if fp32 is not None:
            engine = dict.fromkeys(ENGINE_DRIFT)
            engine |= _prefixed("engine_to_fp32_", _figures(closeness(output, fp32, around), _CLOSE))
            if reference is not None:
                base = _figures(closeness(fp32, reference, around), QUALITY)
                engine |= _differences("engine_delta_", quality, base, ("psnr_db", "ssim", "mae_u8"))
        return SliceScores(pair.case, pair.slice, quality, drift, engine, tuple(counted), spot)

    def _tissues(self, pair: Pair, anchor: Image, head: Mask) -> dict[str, Mask]:
        """Masks by tissue: of the real CT, where there is one, else of the CT that all models are held against."""
        found = {} if pair.lesion is None else {"lesion": pair.lesion}
        ct = to_u8(pair.ct) if pair.ct is not None else anchor if self._output_is_ct else None
        if ct is not None:
            found["air"] = air_mask(ct, self._levels)
            found["soft"] = soft_mask(ct, self._levels, head)
            found["bone"] = bone_mask(ct, self._levels)
        return found

    def _overlaps(self, output: Image, reference: Image) -> tuple[Figures, list[str]]:
        """IoU of foreground and (CT output) bone, and the names of those whose union was empty."""
        level = otsu_level(reference)
        masks = {"iou_foreground": (foreground(output, level), foreground(reference, level))}
        if self._output_is_ct:
            masks["iou_bone"] = (bone_mask(output, self._levels), bone_mask(reference, self._levels))
        figures: Figures = {}
        empty = []
        for name, (first, second) in masks.items():
            figures[name], nothing = overlap(first, second)
            if nothing:
                empty.append(f"empty_{name}")
        return figures, empty

    def _volumes(self, outputs: Sequence[FloatArray]) -> dict[str, Figures]:
        """SynthRAD-style figures per case; empty unless the output is a CT in HU, of a wide window and one size."""
        if not self._output_is_ct or self._ct is None or not sees_air_and_bone(self._ct):
            return {}
        cases: dict[str, list[int]] = {}
        for index, pair in enumerate(self._pairs):
            if pair.ct is not None:
                cases.setdefault(pair.case, []).append(index)
        found: dict[str, Figures] = {}
        for case, indices in cases.items():
            references = [ct[0] for index in indices if (ct := self._pairs[index].ct) is not None]
            if len({plane.shape for plane in references}) == 1:
                planes = [outputs[index][0] for index in indices]
                found[case] = hu_scores(planes, references, self._ct).to_dict()
        return found

    def _check(self, label: str, arrays: Sequence[FloatArray]) -> None:
        if len(arrays) != len(self._pairs):
            raise InputError(f"quality: {len(arrays)} outputs of the {label} for {len(self._pairs)} slices")
        for pair, array in zip(self._pairs, arrays, strict=True):
            given = pair.mr if pair.mr is not None else pair.ct
            if given is not None and given.shape != array.shape:
                raise InputError(f"quality: {pair.label}: output of the {label} is {array.shape}, not {given.shape}")


def quality(
    pairs: Sequence[Pair],
    outputs: Sequence[FloatArray],
    teacher_outputs: Sequence[FloatArray] | None,
    fp32_outputs: Sequence[FloatArray] | None,
    direction: Direction,
    intensity: Intensity | None = None,
) -> QualityResult:
    """Figures of a single model: a :class:`Judge` for one use. ``intensity`` is that of the CT slices."""
    return Judge(pairs, direction, teacher_outputs, intensity).judge(outputs, fp32_outputs)


def blurred(output: FloatArray, times: int = 1) -> FloatArray:
    """A slice (1, H, W) averaged over 3x3 pixels (nearest at the border), so many times: the control that must fail.

    A blurred teacher gains PSNR against a weak reference and stays close to the teacher; ``hf_ratio`` shows it.
    """
    for _ in range(times):
        output = ndimage.uniform_filter(output, size=(1, 3, 3), mode="nearest").astype(np.float32)
    return output


def _figures(close: Closeness, names: Sequence[str]) -> Figures:
    return {name: getattr(close, name) for name in names if hasattr(close, name)}


def _prefixed(prefix: str, figures: Figures) -> Figures:
    return {prefix + name: value for name, value in figures.items()}


def _differences(prefix: str, figures: Figures, base: Figures, names: Sequence[str]) -> Figures:
    """``figures - base``, None where either is missing."""
    found: Figures = {}
    for name in names:
        first, second = figures.get(name), base.get(name)
        found[prefix + name] = None if first is None or second is None else first - second
    return found
