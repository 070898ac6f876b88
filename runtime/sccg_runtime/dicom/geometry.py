"""Order and geometry of a series: what is refused, and what is converted with a note.

Slices are converted one by one within their plane and keep their positions, so a tilted gantry or a changing distance
between slices does no harm to the output, but is noted in it. What would leave a silent gap or mix up images is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

import numpy as np
import numpy.typing as npt

from sccg_runtime.dicom.header import Header
from sccg_runtime.errors import SeriesError

MAX_ANGLE_FROM_AXIAL_DEG = 30.0
SAME_POSITION_MM = 0.01
FARTHEST_MM = 1e6
SAME_DIRECTION = 2e-3
IRREGULAR_SHARE = 0.1
OTHER_ECHO_SHARE = 0.1
MIN_TILT_DEG = 0.5
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about a series.

    Attributes
    ----------
    code
        Short name, such as ``gantry_tilt``.
    text
        One sentence with numbers, without identifiers.
    refused
        Whether the series must not be converted for it.
    """

    code: str
    text: str
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A series in order.

    Attributes
    ----------
    headers
        Sorted by position along the slice normal, ascending.
    size
        (rows, columns), the same for all.
    spacing_mm
        (row, column) pixel spacing in mm, the same for all.
    normal
        Unit normal (x, y, z) of the slices in patient coordinates (LPS).
    findings
        What was found; nothing in it is refused.
    """

    headers: tuple[Header, ...]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    normal: tuple[float, float, float]
    findings: tuple[Finding, ...]


def arrange(headers: Sequence[Header], *, allow_gaps: bool = False) -> Geometry:
    """Sort a series by position and check its geometry (PS3.3 C.7.6.2).

    Parameters
    ----------
    headers
        Of all images of the series, in any order.
    allow_gaps
        Convert although slices are missing.

    Raises
    ------
    SeriesError
        Something must not be converted; every reason is in the message.
    """
    if not headers:
        raise SeriesError("the series holds no image")
    findings = _per_image(headers)
    _raise_refused(findings)
    first = headers[0]
    assert first.orientation is not None  # noqa: S101  (checked per image)
    assert first.spacing_mm is not None  # noqa: S101
    orientation = np.asarray(first.orientation, np.float64)
    normal = np.cross(orientation[:3], orientation[3:])
    normal /= np.linalg.norm(normal)
    positions = np.array([header.position_mm for header in headers], np.float64)
    order = sorted(range(len(headers)), key=lambda index: (float(positions[index] @ normal), headers[index].name))
    ordered = tuple(headers[index] for index in order)
    along = positions[order] @ normal
    gaps = np.diff(along)
    findings += _between_images(ordered, gaps, allow_gaps)
    _raise_refused(findings)
    findings += _directions(normal, positions[order])
    _raise_refused(findings)
    return Geometry(
        headers=ordered,
        size=first.size,
        spacing_mm=first.spacing_mm,
        normal=(float(normal[0]), float(normal[1]), float(normal[2])),
        findings=tuple(findings),
    )


def echo_times_ms(headers: Sequence[Header]) -> tuple[float, ...]:
    """Echo times of a series, each once, ascending; images that name none are left out."""
    return tuple(sorted({header.echo_time_ms for header in headers if header.echo_time_ms is not None}))


def choose_echo(headers: Sequence[Header], number: int | None) -> tuple[tuple[Header, ...], tuple[Finding, ...]]:
    """The images of one echo, where a series holds several at each position (such as PD and T2).

    Parameters
    ----------
    headers
        Of all images of the series.
    number
        From 1, by ascending echo time: the last one is the most T2-weighted. None: all images.

    Returns
    -------
    tuple
        The images; what there is to say about the choice, if one was made.

    Raises
    ------
    SeriesError
        There are not as many echoes, an image names no echo time, or the echo is not there at every position.
    """
    if number is None:
        return tuple(headers), ()
    for header in headers:
        if header.echo_time_ms is None:
            raise SeriesError(f"{header.name} names no echo time: leave --echo out")
    times = echo_times_ms(headers)
    if number > len(times):
        raise SeriesError(f"there is no echo {number}; the series has {_echoes(times)}")
    time = times[number - 1]
    chosen = tuple(header for header in headers if header.echo_time_ms == time)
    missing = {header.position_mm for header in headers} - {header.position_mm for header in chosen}
    if missing:
        raise SeriesError(f"echo {number} ({time:g} ms) is missing at {len(missing)} positions of the series")
    text = f"echo {number} of {len(times)} was converted (echo time {time:g} ms)"
    return chosen, (Finding("echo", text, refused=False),)


def _echoes(times: Sequence[float]) -> str:
    return ", ".join(f"{number}: {time:g} ms" for number, time in enumerate(times, 1))


def angle_from_axial_deg(orientation: Sequence[float]) -> float:
    """Degrees between the normal of an ImageOrientationPatient (6 cosines, LPS) and the body's long axis, 0 to 90."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    return math.degrees(math.acos(min(1.0, abs(float(normal[2])) / length))) if length > 0 else 90.0


def _raise_refused(findings: Sequence[Finding]) -> None:
    refused = [finding.text for finding in findings if finding.refused]
    if refused:
        raise SeriesError("the series is refused: " + "; ".join(refused))


def _per_image(headers: Sequence[Header]) -> list[Finding]:
    """Each image for itself, and all against the first."""
    found: dict[str, Finding] = {}

    def refuse(code: str, text: str) -> None:
        found.setdefault(code, Finding(code, f"{text}: replace it, or remove what does not belong", refused=True))

    first = headers[0]
    seen: dict[tuple[str, int | None], Header] = {}
    for header in headers:
        name = header.name
        number = None if header.frame is None else header.frame.number
        other = seen.setdefault((header.sop_instance_uid, number), header)
        if other is not header:
            refuse("same_uid", f"{name} has the SOPInstanceUID of {other.name}")
        if header.position_mm is None or header.orientation is None or header.spacing_mm is None:
            refuse("no_geometry", f"{name} lacks a position, an orientation or a pixel spacing")
            continue
        row, column = np.array(header.orientation[:3]), np.array(header.orientation[3:])
        lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
        if max(abs(length - 1) for length in lengths) > 0.01 or abs(float(row @ column)) > 0.01:
            refuse("bad_orientation", f"{name} has an orientation that is no pair of perpendicular unit vectors")
        if min(header.size) < 1 or not all(0.01 <= side <= 20 for side in header.spacing_mm):
            refuse("bad_matrix", f"{name} has a matrix or a pixel spacing that cannot be")
        if max(map(abs, header.position_mm)) > FARTHEST_MM:
            refuse("bad_position", f"{name} has a position that cannot be")
        if header.size != first.size:
            refuse(
                "mixed_matrix",
                f"{name} has {_by(header.size)} pixels, {first.name} {_by(first.size)}",
            )
        if first.orientation and np.abs(np.subtract(header.orientation, first.orientation)).max() > SAME_DIRECTION:
            refuse("mixed_orientation", f"{name} is oriented otherwise than {first.name}")
        if first.spacing_mm and not np.allclose(header.spacing_mm, first.spacing_mm, rtol=1e-3, atol=0):
            refuse("mixed_spacing", f"{name} has another pixel spacing than {first.name}")
        if (header.study_uid, header.patient) != (first.study_uid, first.patient):
            refuse("mixed_patient", f"{name} belongs to another study or patient than {first.name}")
        if header.rescaled != first.rescaled:
            has, has_not = (name, first.name) if header.rescaled else (first.name, name)
            refuse("mixed_rescale", f"{has} has a rescale and {has_not} has none, so that their values do not compare")
        if header.frame_of_reference_uid != first.frame_of_reference_uid:
            refuse("mixed_frame_of_reference", f"{name} has another frame of reference than {first.name}")
    if not first.frame_of_reference_uid:
        text = "the series has no frame of reference; the output gets one of its own"
        found["no_frame_of_reference"] = Finding("no_frame_of_reference", text, refused=False)
    if mixed := [name for name in first.settings if len({header.settings.get(name) for header in headers}) > 1]:
        text = f"the images differ in {' and '.join(mixed)}: not all were acquired or computed alike"
        found["mixed_settings"] = Finding("mixed_settings", text, refused=False)
    if any(header.lossy for header in headers):
        found["lossy"] = Finding("lossy", "the source was compressed with losses, or does not deny it", refused=False)
    return list(found.values())


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _between_images(headers: Sequence[Header], gaps: Array, allow_gaps: bool) -> list[Finding]:
    """Duplicates, missing slices, changing distances. ``gaps`` in mm along the normal, one less than images."""
    if len(headers) == 1:
        return [Finding("single_slice", "the series is a single slice", refused=False)]
    same = [index for index, gap in enumerate(gaps) if gap < SAME_POSITION_MM]
    if same:
        pair = f"{headers[same[0]].name} and {headers[same[0] + 1].name}"
        text = f"{len(same)} slices lie where another does (first: {pair}): "
        times = echo_times_ms(headers)
        if len(times) > 1:
            text += f"choose one of the echoes ({_echoes(times)}) with --echo N"
        else:
            text += "copies, time points or weightings in one series; keep one image per position"
        return [Finding("duplicates", text, refused=True)]
    times = echo_times_ms(headers)
    if times and times[-1] - times[0] > OTHER_ECHO_SHARE * times[-1]:
        span = f"{times[0]:g} to {times[-1]:g} ms"
        text = f"echo times differ from position to position ({span}), as where images of an echo are lost"
        return [Finding("mixed_echoes", f"{text}: fetch them, or convert a series of one echo", refused=True)]
    step = _lower_median(gaps)
    # Thicker slices lie farther apart: a gap is usual where it is to its slices' thickness as elsewhere in the series.
    thickness = np.array([max(one.thickness_mm or 0, other.thickness_mm or 0) for one, other in pairwise(headers)])
    usual = _lower_median(gaps[thickness > 0] / thickness[thickness > 0]) * thickness if thickness.any() else thickness
    missing, first = 0, None
    for index, gap in enumerate(gaps):
        multiple = round(float(gap) / step)
        covered = gap <= 1.5 * usual[index]
        if multiple >= 2 and abs(gap - multiple * step) <= IRREGULAR_SHARE * multiple * step and not covered:
            missing += multiple - 1
            first = index if first is None else first
    if first is not None:
        # An accepted gap is told in the output, where no name of a file belongs: it may be a patient's.
        where = (
            f"slices {first + 1} and {first + 2}"
            if allow_gaps
            else f"{headers[first].name} and {headers[first + 1].name}"
        )
        return [
            _missing(f"{missing} slices are missing (first gap between {where}; spacing {step:.2f} mm)", allow_gaps)
        ]
    said, thick = headers[0].between_mm, float(thickness.max())
    # Some scanners state there what lies between slices, edge to edge: less than their thickness, it says nothing.
    if said is not None and 0 < 0.99 * thick <= said < step / 1.5:
        text = f"slices lie {step:.2f} mm apart and SpacingBetweenSlices says {said:.2f}: others between may be missing"
        return [_missing(text, allow_gaps)]
    if float(gaps.max() - gaps.min()) > max(IRREGULAR_SHARE * step, SAME_POSITION_MM):
        text = f"slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart (irregular spacing)"
        return [Finding("irregular_spacing", text, refused=False)]
    return []


def _missing(text: str, allow_gaps: bool) -> Finding:
    advice = "" if allow_gaps else ": fetch them, or convert with --allow-gaps"
    return Finding("missing_slices", text + advice, refused=not allow_gaps)


def _lower_median(values: Array) -> float:
    """A distance that occurs: between a slice's and a gap's, where both are as frequent, nothing would stand out."""
    return float(median_low(values.tolist()))


def _directions(normal: Array, positions: Array) -> list[Finding]:
    """Angle to the axial plane, and the gantry tilt. ``positions`` (N, 3) in mm, in order."""
    found = []
    angle = math.degrees(math.acos(min(1.0, abs(float(normal[2])))))
    if angle > MAX_ANGLE_FROM_AXIAL_DEG:
        limit = f"at most {MAX_ANGLE_FROM_AXIAL_DEG:.0f} is converted"
        text = f"the slices lie {angle:.0f} degrees from axial ({limit}): convert an axial series"
        found.append(Finding("not_axial", text, refused=True))
    steps = [later - earlier for earlier, later in pairwise(positions)]
    if steps:
        way = positions[-1] - positions[0]
        tilt = math.degrees(math.acos(min(1.0, abs(float(way @ normal)) / float(np.linalg.norm(way)))))
        if tilt > MIN_TILT_DEG:
            text = f"gantry tilt of {tilt:.1f} degrees: slices are shifted against each other within their planes"
            found.append(Finding("gantry_tilt", text, refused=False))
    return found
