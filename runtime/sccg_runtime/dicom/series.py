"""Which series of a folder is converted, and why the others are not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from sccg_runtime.dicom.enhanced import frames
from sccg_runtime.dicom.geometry import MAX_ANGLE_FROM_AXIAL_DEG, SAME_DIRECTION, angle_from_axial_deg
from sccg_runtime.dicom.header import CT_IMAGE, ENHANCED, ENHANCED_CT, ENHANCED_MR, MR_IMAGE, Header, read_header
from sccg_runtime.dicom.source import entries
from sccg_runtime.errors import SeriesError
from sccg_runtime.intensity import Modality
from sccg_runtime.pipeline import in_order

_CLASSES = {"CT": (CT_IMAGE, *ENHANCED_CT), "MR": (MR_IMAGE, *ENHANCED_MR)}
_NAMED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture, which has no units and no geometry",
    "1.2.840.10008.1.3.10": "DICOMDIR, an index without images",
}
_PROJECTIONS = ("MIP", "MAX IP", "MIN IP", "MINIP", "MNIP")
_WORDS = (*_PROJECTIONS, "MAP", "SUBTRACT", "SUBTRACTION")  # of a longer value, too: "CT_SOM5 MIP", "T1_MAP"
_REJECTED_TYPES = {  # as words between blanks, where an underscore is one, too
    "LOCALIZER": "a localizer",
    "SCOUT": "a localizer",
    "SCREEN SAVE": "a screen capture",
    "SCREENSHOT": "a screen capture",
    "DOSE INFO": "a dose report",
    "DOSE REPORT": "a dose report",
    "PROJECTION IMAGE": "a projection, not slices",
    **dict.fromkeys(_PROJECTIONS, "a projection, not slices"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM", "VOLUME RENDER", "SURFACE RENDER"), "a projection, not slices"),
    "CURVED MPR": "a curved section, not slices",
    "MOSAIC": "a mosaic of slices in one picture",
    "MAP": "a parameter map",
    "ADC": "a parameter map",
    "P": "a phase image",
    "PHASE": "a phase image",
    "REAL": "the real part of an image",
    "R": "the real part of an image",
    "IMAGINARY": "the imaginary part of an image",
    "I": "the imaginary part of an image",
    **dict.fromkeys(("FAT FRACTION", "FA", "EXP", "DIFFUSION ANISO"), "a parameter map"),
    **dict.fromkeys(("R COEFFICIENT", "R2 COEFFICIENT"), "a parameter map"),
    **dict.fromkeys(("TTP", "MTT", "TMAX", "CBV", "CBF"), "a parameter map"),
    **dict.fromkeys(("RCBV", "RCBF", "RELCBV", "RELCBF", "RELMTT", "RELTTP"), "a parameter map"),
    "SUB": "a difference of images",
    "SUBTRACTION": "a difference of images",
    "SUBTRACT": "a difference of images",
    "SYNTHETIC": "synthetic, not acquired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The images of one SeriesInstanceUID, in the order that their files were found.

    Attributes
    ----------
    headers
        One per image: per file, or per frame of a multi-frame file.
    rejected
        Why the series is not converted, or None.
    """

    headers: tuple[Header, ...] = field(repr=False)
    rejected: str | None = None

    @property
    def label(self) -> str:
        """Number, modality, count, matrix and first file: enough to know it by, nothing of the patient's data."""
        first = self.headers[0]
        number = "without number" if first.series_number is None else str(first.series_number)
        size = f"{first.size[0]}x{first.size[1]}"
        count = f"{len(self.headers)} {first.modality or '?'} images"
        return f"series {number} ({count}, {size}, first file {first.entry.name})"


def find_series(source: Path, modality: Modality) -> tuple[list[Series], int]:
    """All series of a folder or zip, each with the reason why it does not fit ``modality``, if so.

    Returns
    -------
    tuple
        The series, in the order of their first files; the number of files (and links to folders) that are not DICOM.

    Raises
    ------
    InputError
        Nothing can be read there.
    SeriesError
        A DICOM file is damaged, a file is called like an image but is none, or no image is there.
    """
    files = entries(source)
    with ThreadPoolExecutor(2) as pool:
        headers = list(in_order(pool, read_header, files))
    _check_foreign([file.name for file, header in zip(files, headers, strict=True) if header is None], headers)
    groups: dict[str, list[Header]] = {}
    for header in headers:
        if header is not None:
            wanted = header.sop_class_uid in ENHANCED and header.sop_class_uid in _CLASSES[modality]
            group = groups.setdefault(header.series_uid or header.sop_class_uid, [])
            group.extend(frames(header) if wanted else [header])
    if not groups:
        raise SeriesError(f"{source.name or source}: none of {len(files)} files is DICOM: name the series' own folder")
    series = [Series(headers=tuple(group), rejected=_rejection(group, modality)) for group in groups.values()]
    return series, sum(header is None for header in headers)


def _check_foreign(names: Sequence[str], headers: Sequence[Header | None]) -> None:
    """Images often have no suffix: what is called like one, but for its digits, and is not DICOM has been damaged."""
    images = {_without_digits(header.entry.name) for header in headers if header is not None}
    for name in names:
        if _without_digits(name) in images:
            raise SeriesError(
                f"{name} is called like an image beside it but is not DICOM or is cut off: replace or remove it"
            )


def _without_digits(name: str) -> str:
    return re.sub(r"\d+", "0", name.casefold())


def apply_rules(series: Sequence[Series], *, sequence: str | None = None, min_slices: int = 1) -> list[Series]:
    """The same series; those that break a rule are rejected with the reason.

    Parameters
    ----------
    sequence
        Text that one of the words which name the MR sequence must hold (:attr:`Header.sequence`), in any case.
    min_slices
        At least so many images.
    """
    return [item if item.rejected else replace(item, rejected=_broken(item, sequence, min_slices)) for item in series]


def _broken(item: Series, sequence: str | None, min_slices: int) -> str | None:
    if len(item.headers) < min_slices:
        return f"fewer than {min_slices} slices"
    if sequence is not None:
        for header in item.headers:
            if not any(sequence.casefold() in word.casefold() for word in header.sequence):
                return f"{header.name} names no sequence {sequence}"
    return None


def choose_series(series: Sequence[Series], wanted: str | None = None) -> Series:
    """The series to convert: the one that fits, or the one that ``wanted`` names.

    Parameters
    ----------
    series
        From :func:`find_series`.
    wanted
        SeriesInstanceUID (0020,000E), SeriesNumber (0020,0011) or SeriesDescription (0008,103E: the whole text, else a
        part of it, in any case); ``:N``, the N-th of ``series`` as the messages list them; None where only one fits.

    Raises
    ------
    SeriesError
        None fits, several fit, or the wanted one is not there or does not fit. The message lists what is there.
    """
    if wanted is not None:
        named = _named(series, wanted)
        if not named:
            raise SeriesError(f"no series {wanted}; there are: {_listing(series, series)}")
        fitting = [item for item in named if item.rejected is None]
        if not fitting:
            raise SeriesError(f"{named[0].label} is not converted: {named[0].rejected}")
        if len(fitting) > 1:
            raise SeriesError(
                f"{len(fitting)} series have number or description {wanted}; choose one with --series :N, as listed, "
                f"or its SeriesInstanceUID (0020,000E): {_listing(series, fitting)}"
            )
        return fitting[0]
    fitting = [item for item in series if item.rejected is None]
    if not fitting:
        raise SeriesError(f"no series can be converted: {_listing(series, series)}")
    if len(fitting) > 1:
        raise SeriesError(
            f"{len(fitting)} series fit; choose one with --series :N, as listed: {_listing(series, fitting)}"
        )
    return fitting[0]


def _named(series: Sequence[Series], wanted: str) -> list[Series]:
    """By place, UID or number, else by the whole description, else by a part of it."""
    if (place := re.fullmatch(":([0-9]{1,6})", wanted)) is not None:
        return list(series[max(0, int(place[1]) - 1) : int(place[1])])
    text = wanted.strip().casefold()
    for found in (
        [item for item in series if wanted in _names(item.headers[0])],
        [item for item in series if text and item.headers[0].description.casefold() == text],
        [item for item in series if text and text in item.headers[0].description.casefold()],
    ):
        if found:
            return found
    return []


def _names(header: Header) -> tuple[str, ...]:
    return (header.series_uid,) if header.series_number is None else (header.series_uid, str(header.series_number))


def _listing(series: Sequence[Series], some: Sequence[Series]) -> str:
    """Some of the series, each with its place among all."""
    places = {id(item): place for place, item in enumerate(series, start=1)}
    texts = [
        f":{places[id(item)]} {item.label}" + (f": {item.rejected}" if item.rejected else "") for item in some[:12]
    ]
    if len(some) > 12:
        texts.append(f"and {len(some) - 12} more")
    return "; ".join(texts)


def _rejection(headers: Sequence[Header], modality: Modality) -> str | None:
    """Why these images are not converted, or None. Mixed series are refused, never thinned out."""
    classes = Counter(header.sop_class_uid for header in headers)
    for uid in classes:
        if uid in _NAMED_CLASSES:
            return _NAMED_CLASSES[uid]
    if len(classes) > 1 and set(classes) <= set(_CLASSES[modality]):
        return "it mixes classic and multi-frame images"
    if not set(classes) <= set(_CLASSES[modality]):
        found = sorted({header.modality or "no modality" for header in headers})
        return f"the bundle takes {modality} images, this is {', '.join(found)}"
    return unfit(headers, modality) or _concatenation(headers)


def unfit(headers: Sequence[Header], modality: Modality) -> str | None:
    """Why these images of a series are no acquired slices of ``modality`` with one orientation, or None."""
    for header in headers:
        name = header.name
        if header.modality != modality:
            return f"{name} says modality {header.modality or 'none'} in a {modality} image"
        if header.synthetic:
            return f"{name} is synthetic already"
        if header.burned_in:
            return f"{name} has text burned into its pixels"
        for part in header.image_type:
            value = " ".join(part.upper().replace("_", " ").split())
            kind = next((words for words in _WORDS if f" {words} " in f" {value} "), value)
            if kind in _REJECTED_TYPES:
                return f"{name} is {_REJECTED_TYPES[kind]}"
        if header.frames != 1 or header.samples != 1:
            return f"{name} has {header.frames} frames and {header.samples} samples per pixel, not 1 and 1"
        if not (header.sop_instance_uid and header.series_uid and header.study_uid):
            return f"{name} lacks a SOP instance, series or study UID"
    return _orientation(headers)


def _orientation(headers: Sequence[Header]) -> str | None:
    """Localizers that do not call themselves so lie across each other; coronal and sagittal series are refused."""
    known = [(header, header.orientation) for header in headers if header.orientation is not None]
    for header, orientation in known:
        if max(abs(a - b) for a, b in zip(orientation, known[0][1], strict=True)) > SAME_DIRECTION:
            return f"{header.name} is oriented otherwise than {known[0][0].name}, as in a localizer"
    angle = angle_from_axial_deg(known[0][1]) if known else 0.0
    if angle > MAX_ANGLE_FROM_AXIAL_DEG:
        return f"its slices lie {angle:.0f} degrees from axial"
    return None


def _concatenation(headers: Sequence[Header]) -> str | None:
    """An Enhanced image may be split into several files (PS3.3 C.7.6.16.2.2.4): all must be there."""
    parts: dict[tuple[str, int], set[str]] = {}
    for header in headers:
        if header.concatenation is not None:
            parts.setdefault(header.concatenation, set()).add(header.sop_instance_uid)
    for (_, total), found in parts.items():
        if total and len(found) != total:
            return f"{len(found)} of the {total} files of a split multi-frame image are here: fetch the others"
    return None
