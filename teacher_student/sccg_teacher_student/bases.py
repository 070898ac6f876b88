"""The slices that views are made from: those of the training cases, then unpaired ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sccg_bench.protocols import Pair
from sccg_runtime.direction import Direction, modalities
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Modality
from sccg_teacher_student.checkpoint import Checkpoint
from sccg_teacher_student.data.source import DataSource, open_unpaired, spacing_differs
from sccg_teacher_student.labels import Labeller, make_labeller
from sccg_teacher_student.views import Base

MEMORY_BYTES = 2 * 2**30
SMALLEST_SIDE = 32  # of the discriminator, the wavelet levels and the SSIM window
Loaded = tuple[FloatArray, FloatArray | None]


@dataclass(frozen=True, slots=True)
class Bases:
    """What a run learns from.

    Attributes
    ----------
    slices
        Those of the training cases first, all of one size.
    unpaired
        How many of them are unpaired.
    size
        (rows, columns) in pixels.
    fingerprint
        SHA-256 over names and values of all slices as they were read, before any reverse teacher.
    """

    slices: list[Base]
    unpaired: int
    size: tuple[int, int]
    fingerprint: str


class SliceMemory:
    """Keeps loaded slices in memory, up to a limit in bytes; those beyond it are loaded again each time."""

    def __init__(self, limit_bytes: int = MEMORY_BYTES) -> None:
        self.left_bytes = limit_bytes

    def remember(self, load: Callable[[], Loaded]) -> Callable[[], Loaded]:
        """``load`` that reads only once, where its slices fit."""
        kept: list[Loaded] = []

        def loaded() -> Loaded:
            if kept:
                return kept[0]
            slices = load()
            size_bytes = sum(part.nbytes for part in slices if part is not None)
            if size_bytes <= self.left_bytes:
                self.left_bytes -= size_bytes
                kept.append(slices)
            return slices

        return loaded


def collect_bases(
    source: DataSource,
    cases: Sequence[str],
    direction: Direction,
    unpaired: Sequence[Path],
    settings: Path | None,
    *,
    strides: Sequence[int],
    reverse: Checkpoint | None,
    device: torch.device,
    say: Callable[[str], None],
) -> Bases:
    """Slices of ``cases``, then those of the ``unpaired`` folders; every one is read and checked.

    Parameters
    ----------
    settings
        Takes the place of the unpaired folders' own, or None: their own, else those of ``source``.
    strides
        Of the networks that will run on the slices: both sides must be multiples of each.
    reverse
        Teacher of the other direction, or None. With it the unpaired folders hold the *output* modality, and what it
        makes of them is the input.
    say
        Is told of unpaired folders whose grey values or pixels mean something else than those of ``source``.

    Raises
    ------
    InputError
        There is no slice, or none that is not blank, sizes differ or do not fit, or an unpaired folder holds cases of
        ``source`` that are not among ``cases``, or copies of their slices: what is held out is not to be learned from.
    """
    memory, digest = SliceMemory(), hashlib.sha256()
    found = [
        Base(case, name, memory.remember(partial(_load_pair, source, case, name, direction)))
        for case in cases
        for name in source.slices(case)
    ]
    if not found:
        raise InputError("there is no slice to learn from")
    first = found[0]
    rows, columns = first.load()[0].shape
    stride = int(np.lcm.reduce([*strides, *([reverse.spec.stride] if reverse else [])]))
    if rows % stride or columns % stride or min(rows, columns) < SMALLEST_SIDE:
        raise InputError(
            f"slices of {rows}x{columns} pixels: both sides must be multiples of {stride}, and {SMALLEST_SIDE} or more"
        )
    for base in found:
        _take(digest, base, base.load(), first, (rows, columns))
    if all(np.ptp(base.load()[0]) == 0 for base in found):
        raise InputError(f"every slice to learn from is blank, {first.case}/{first.slice} the first of them")
    paired = len(found)
    label = make_labeller(reverse.generator, (rows, columns), device)[0] if reverse else None
    given, made = modalities(direction)
    modality = made if reverse else given
    others = [case for case in source.cases if case not in cases]
    held_out = {source.folders[case].resolve() for case in others}
    known = _known_patterns(replace(source, size=None), others, modality) if unpaired else {}
    for folder in unpaired:
        stored = open_unpaired(folder, modality, settings, source.settings)
        extra = replace(stored, size=source.size)
        for differs in _differences(extra, source, cases, modality):
            say(f"{differs}: learned from all the same")
        for where, name in _training_slices(extra, held_out):
            plain = partial(_load_unpaired, extra, where, name)
            load = plain if label is None else partial(_reversed, plain, label)
            base = Base(f"{folder.name}/{where}", name, memory.remember(load), synthetic=label is not None)
            slices = base.load() if label is None else plain()
            _take(digest, base, slices, first, (rows, columns))
            image = slices[0] if source.size is None else _load_unpaired(stored, where, name)[0]
            if (held := known.get(pattern(image))) is not None:
                raise InputError(f"{folder}: {where}/{name} is {held} of the paired data, which is held out")
            found.append(base)
    return Bases(found, len(found) - paired, (rows, columns), digest.hexdigest())


def check_pairs(pairs: Sequence[Pair], direction: Direction, size: tuple[int, int]) -> None:
    """Validation comes last; what would stop it is told before hours of training.

    Raises
    ------
    InputError
        The input slice of a pair is missing or not of ``size`` (rows, columns).
    """
    for pair in pairs:
        rows, columns = pair.given(direction).shape[1:]
        if (rows, columns) != size:
            raise InputError(
                f"validation slice {pair.label} is {rows}x{columns} pixels, "
                f"training slices are {size[0]}x{size[1]}: all slices must be of one size"
            )


def _take(digest: hashlib._Hash, base: Base, slices: Loaded, first: Base, size: tuple[int, int]) -> None:
    """Check the sizes of one base and add it to the fingerprint."""
    digest.update(f"\n{base.case}\n{base.slice}\n".encode())
    for image in slices:
        if image is not None and image.shape != size:
            raise InputError(
                f"{base.case}/{base.slice} is {image.shape[0]}x{image.shape[1]} pixels, "
                f"{first.case}/{first.slice} {size[0]}x{size[1]}: all slices must be of one size"
            )
        digest.update(b"none" if image is None else np.ascontiguousarray(image).tobytes())


def _differences(extra: DataSource, source: DataSource, cases: Sequence[str], modality: Modality) -> Iterator[str]:
    """How slices of an unpaired folder differ in kind from those of ``cases``, in words."""
    if extra.settings.intensity(modality) != source.settings.intensity(modality):
        yield f"{extra.path} has {modality} of another intensity than {source.path}"
    try:
        theirs, ours = extra.spacing_mm(), source.spacing_mm(cases)
    except InputError as error:
        yield str(error)
        return
    if theirs and ours and spacing_differs(theirs, ours):
        told = " and ".join(f"{rows:g} x {columns:g} mm" for rows, columns in (theirs, ours))
        yield f"{extra.path} and {source.path} have pixels of {told}"


def _known_patterns(source: DataSource, cases: Sequence[str], modality: Modality) -> dict[bytes | None, str]:
    """Pattern of every slice of ``cases`` -> ``case/slice``; blank slices are nobody's."""
    pairs = ((pair.label, pair.image(modality)) for pair in source.pairs(cases))
    known = {pattern(image[0]): label for label, image in pairs if image is not None}
    known.pop(None, None)
    return known


def pattern(image: FloatArray) -> bytes | None:
    """Hash of where (H, W) reaches its foreground's median; None where that is less than a hundredth, as a mark.

    It does not depend on what MR was scaled by, which is of all slices in a folder, not of one.
    """
    foreground = image[image > image.min()]
    if 100 * foreground.size <= image.size:
        return None
    bright = image >= np.percentile(foreground, 50, method="lower")
    return hashlib.sha256(np.packbits(bright).tobytes()).digest()


def _training_slices(source: DataSource, held_out: set[Path]) -> Iterator[tuple[str, str]]:
    """(case, slice) of an unpaired folder: of its train split alone where it has splits."""
    cases = source.splits.get("train", ()) if source.splits else source.cases
    if not cases:
        raise InputError(f"{source.path} has {' and '.join(source.splits)} cases, but none to train on")
    for case in cases:
        if _lies_in(source.folders[case], held_out):
            raise InputError(f"{source.path}: {case} is a held-out case of the paired data, not to be learned from")
        for name in source.slices(case):
            yield case, name


def _lies_in(folder: Path, others: set[Path]) -> bool:
    """Whether a case's folder, or a folder in it, is one of ``others`` or lies in one, links followed."""
    places = [folder.resolve(), *(entry.resolve() for entry in folder.iterdir() if entry.is_dir())]
    return any(not others.isdisjoint((place, *place.parents)) for place in places)


def _load_pair(source: DataSource, case: str, name: str, direction: Direction) -> Loaded:
    pair = source.load(case, name)
    reference = pair.reference(direction)
    return pair.given(direction)[0], None if reference is None else reference[0]


def _load_unpaired(source: DataSource, case: str, name: str) -> Loaded:
    pair = source.load(case, name)
    image = pair.mr if pair.mr is not None else pair.ct
    if image is None:
        raise InputError(f"{case}/{name} has no slice")
    return image[0], None


def _reversed(load: Callable[[], Loaded], label: Labeller) -> Loaded:
    return np.clip(label(load()[0][None]), -1, 1)[0], None
