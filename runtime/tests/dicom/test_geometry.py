import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_runtime.dicom.enhanced import frames as frames_of
from sccg_runtime.dicom.geometry import arrange, choose_echo
from sccg_runtime.dicom.header import Header, read_header
from sccg_runtime.dicom.source import Entry, entries
from sccg_runtime.errors import SeriesError

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def header(index, position, **changes):
    base = Header(
        entry=Entry(f"{index:03d}.dcm", lambda: None, bytes),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.{index + 1}",
        study_uid="2.1",
        series_uid="3.1",
        frame_of_reference_uid="4.1",
        patient=("id", "name"),
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        series_number=1,
        rescaled=False,
        synthetic=False,
        burned_in=False,
        lossy=False,
        frames=1,
        samples=1,
        size=(64, 64),
        spacing_mm=(0.5, 0.5),
        position_mm=position,
        orientation=AXIAL,
        thickness_mm=5.0,
        echo_time_ms=None,
        window=None,
    )
    return replace(base, **changes)


def stack(heights, **changes):
    return [header(index, (-10.0, -20.0, float(z)), **changes) for index, z in enumerate(heights)]


def number(item):
    return int(item.name.removesuffix(".dcm"))


def codes(geometry):
    return [finding.code for finding in geometry.findings]


@given(
    order=st.permutations(range(12)),
    tilt_deg=st.floats(-29, 29),
    turn_deg=st.floats(0, 360),
    flipped=st.booleans(),
)
def test_slices_come_out_along_the_normal_whatever_their_order(order, tilt_deg, turn_deg, flipped):
    tilt, turn = math.radians(tilt_deg), math.radians(turn_deg)
    row = np.array([math.cos(turn), math.sin(turn), 0])
    column = np.array([-math.sin(turn) * math.cos(tilt), math.cos(turn) * math.cos(tilt), math.sin(tilt)])
    if flipped:
        row, column = column, row
    normal = np.cross(row, column)
    orientation = tuple(float(value) for value in (*row, *column))
    headers = [header(i, tuple(map(float, 5.0 * i * normal + 7 * row)), orientation=orientation) for i in range(12)]
    geometry = arrange([headers[index] for index in order])
    assert [number(item) for item in geometry.headers] == list(range(12))
    np.testing.assert_allclose(geometry.normal, normal, atol=1e-9)
    assert codes(geometry) == []


def test_a_clean_series_has_no_findings():
    geometry = arrange(stack(range(0, 50, 5)))
    assert geometry.findings == ()
    assert (geometry.size, geometry.spacing_mm) == ((64, 64), (0.5, 0.5))


def test_a_tilted_gantry_is_noted_with_its_angle():
    angle = math.radians(18.5)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))
    geometry = arrange(stack(range(0, 50, 5), orientation=orientation))
    assert codes(geometry) == ["gantry_tilt"]
    assert "18.5 degrees" in geometry.findings[0].text


def test_irregular_spacing_is_noted_with_numbers():
    geometry = arrange(stack([0, 4, 8, 12, 13.2, 20.2, 27.2], thickness_mm=4.0))
    assert codes(geometry) == ["irregular_spacing"]
    assert "1.20 to 7.00 mm" in geometry.findings[0].text


@pytest.mark.parametrize("thickness", [-5, 0, None])
def test_a_thickness_that_cannot_be_is_none(make, tmp_path, thickness):
    image = make.dataset("CT", 0, np.zeros((8, 8), np.uint16), SliceThickness=thickness)
    assert read_header(entries(make.save(image, tmp_path / "1.dcm"))[0]).thickness_mm is None


def test_two_zones_of_thickness_are_not_missing_slices():
    thin = stack([0, 3, 6, 9, 12, 15], thickness_mm=3.0)
    thick = [header(index + 6, (-10.0, -20.0, 18.0 + 6 * index), thickness_mm=6.0) for index in range(4)]
    assert codes(arrange(thin + thick)) == ["irregular_spacing"]


@pytest.mark.parametrize("missing", [{3}, {3, 4}, {2, 6}])
def test_missing_slices_are_refused_unless_allowed(missing):
    headers = [item for item in stack(range(0, 50, 5)) if number(item) not in missing]
    with pytest.raises(SeriesError, match=f"{len(missing)} slices are missing.*--allow-gaps"):
        arrange(headers)
    geometry = arrange(headers, allow_gaps=True)
    assert codes(geometry) == ["missing_slices"]
    assert len(geometry.headers) == 10 - len(missing)
    assert ".dcm" not in geometry.findings[0].text  # told in the output, and a file's name may be a patient's


@pytest.mark.parametrize("decimals", [1, 2, 3])
@pytest.mark.parametrize("count", [4, 20, 60])
def test_a_large_hole_is_found_though_rounding_adds_up(decimals, count):
    heights = [round(0.625 * index, decimals) for index in range(200) if not 70 <= index < 70 + count]
    with pytest.raises(SeriesError, match="slices are missing"):
        arrange(stack(heights))


@pytest.mark.parametrize("heights", [[0, 5, 15], [0, 10, 15], [0, 5, 15, 20, 30]])
def test_missing_slices_are_found_where_gaps_are_as_frequent_as_neighbours(heights):
    with pytest.raises(SeriesError, match="slices are missing"):
        arrange(stack(heights))


def test_missing_slices_are_found_where_spacing_is_wider_than_slices():
    headers = [item for item in stack(range(0, 60, 6), thickness_mm=5.0) if number(item) != 4]
    with pytest.raises(SeriesError, match=r"003\.dcm and 005\.dcm"):
        arrange(headers)


def test_missing_slices_are_found_where_slices_overlap():
    headers = [item for item in stack(range(0, 50, 5), thickness_mm=10.0) if number(item) != 4]
    with pytest.raises(SeriesError, match=r"1 slices are missing.*003\.dcm and 005\.dcm"):
        arrange(headers)


def test_every_second_slice_lost_is_found_by_what_the_header_says():
    headers = stack(range(0, 80, 10), between_mm=5.0)
    with pytest.raises(SeriesError, match=r"10\.00 mm apart and SpacingBetweenSlices says 5\.00.*--allow-gaps"):
        arrange(headers)
    assert codes(arrange(headers, allow_gaps=True)) == ["missing_slices"]


@pytest.mark.parametrize(
    ("between_mm", "thickness_mm"),
    [(10.0, 5.0), (None, 5.0), (1.0, 9.0), (5.0, None), (9.8, 5.0)],
    ids=["right", "not said", "edge to edge", "thickness not said", "rounded"],
)
def test_what_the_header_says_between_slices_is_no_false_alarm(between_mm, thickness_mm):
    assert codes(arrange(stack(range(0, 80, 10), between_mm=between_mm, thickness_mm=thickness_mm))) == []


def test_echo_times_that_change_from_slice_to_slice_are_refused():
    headers = stack(range(0, 40, 5), echo_time_ms=12.0)
    headers[3] = replace(headers[3], echo_time_ms=90.0)
    with pytest.raises(SeriesError, match=r"differ from position to position \(12 to 90 ms\)"):
        arrange(headers)
    headers[3] = replace(headers[3], echo_time_ms=12.4)
    assert codes(arrange(headers)) == []


def test_settings_that_change_from_slice_to_slice_are_noted():
    headers = stack(range(0, 40, 5), settings={"KVP": "120", "ConvolutionKernel": "STD"})
    assert codes(arrange(headers)) == []
    headers[3] = replace(headers[3], settings={"KVP": "120", "ConvolutionKernel": "BONE"})
    (finding,) = arrange(headers).findings
    assert (finding.code, finding.refused) == ("mixed_settings", False)
    assert "differ in ConvolutionKernel:" in finding.text


@pytest.mark.parametrize("frames", [1, 2])
def test_settings_are_read_of_files_and_of_frames(make, tmp_path, frames):
    plane = np.zeros((8, 8), np.uint16)
    if frames == 1:
        for index, kind in enumerate(("W", "F")):
            image = make.dataset("MR", index, plane, ImageType=["ORIGINAL", "PRIMARY", kind])
            make.save(image, tmp_path / f"{index}.dcm")
        headers = [read_header(entry) for entry in entries(tmp_path)]
    else:
        kinds = [{"FrameType": ["ORIGINAL", "PRIMARY", kind, "NONE"]} for kind in ("T1", "T2")]
        make.save(make.enhanced("MR", np.stack([plane, plane]), lambda index: kinds[index]), tmp_path / "1.dcm")
        headers = frames_of(read_header(entries(tmp_path)[0]))
    assert "mixed_settings" in codes(arrange(headers))


def test_a_position_that_cannot_be_is_refused():
    with pytest.raises(SeriesError, match=r"002\.dcm has a position that cannot be"):
        arrange(stack([0, 0.02, 1e308]))


def test_images_of_one_uid_are_refused_where_their_files_are_called_alike_too():
    headers = stack([0, 5, 10])
    alike = [replace(header, entry=headers[0].entry) for header in headers]
    arrange(alike)
    alike[2] = replace(alike[2], sop_instance_uid=alike[1].sop_instance_uid)
    with pytest.raises(SeriesError, match="has the SOPInstanceUID of"):
        arrange(alike)


def test_two_images_that_call_themselves_the_same_are_refused():
    headers = stack([0, 5, 10])
    headers[2] = replace(headers[2], sop_instance_uid=headers[0].sop_instance_uid)
    with pytest.raises(SeriesError, match=r"002\.dcm has the SOPInstanceUID of 000\.dcm"):
        arrange(headers)


def test_duplicates_are_refused_by_name():
    with pytest.raises(SeriesError, match=r"1 slices lie where another does.*002\.dcm and 003\.dcm"):
        arrange(stack([0, 5, 10, 10, 15]))
    with pytest.raises(SeriesError, match="another does"):
        arrange(stack([0, 0, 0]))


def echoes(*times, slices=4):
    """Several echoes at each position, one echo after the other."""
    return [
        replace(item, sop_instance_uid=f"{item.sop_instance_uid}.{number}")
        for number, time in enumerate(times)
        for item in stack([5 * index for index in range(slices)], echo_time_ms=time)
    ]


def test_several_echoes_are_refused_with_a_way_out():
    with pytest.raises(SeriesError, match=r"one of the echoes \(1: 12 ms, 2: 102\.5 ms\) with --echo N"):
        arrange(echoes(102.5, 12))
    with pytest.raises(SeriesError, match="copies, time points or weightings"):
        arrange(echoes(12, 12))


def test_one_echo_is_chosen_by_its_time_and_noted():
    chosen, (finding,) = choose_echo(echoes(102.5, 12), 2)
    assert {item.echo_time_ms for item in chosen} == {102.5}
    assert len(arrange(chosen).headers) == 4
    assert (finding.code, finding.refused) == ("echo", False)
    assert finding.text == "echo 2 of 2 was converted (echo time 102.5 ms)"
    assert choose_echo(chosen, None) == (chosen, ())


@pytest.mark.parametrize(
    ("headers", "number", "reason"),
    [
        (echoes(12, 102), 3, r"no echo 3; the series has 1: 12 ms, 2: 102 ms"),
        ([*echoes(12, 102), *echoes(None)], 1, "names no echo time"),
        (echoes(12, 102)[:-1], 2, "missing at 1 positions"),
        ([*stack([0, 5], echo_time_ms=12.0), *stack([10, 15], echo_time_ms=13.0)], 1, "missing at 2 positions"),
    ],
)
def test_an_echo_that_is_not_whole_is_not_chosen(headers, number, reason):
    with pytest.raises(SeriesError, match=reason):
        choose_echo(headers, number)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": (64, 32)}, "64x32"),
        ({"orientation": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)}, "oriented otherwise"),
        ({"spacing_mm": (0.5, 0.6)}, "another pixel spacing"),
        ({"study_uid": "2.2"}, "another study or patient"),
        ({"patient": ("other", "name")}, "another study or patient"),
        ({"frame_of_reference_uid": "4.2"}, "another frame of reference"),
        ({"rescaled": True}, r"has a rescale and 00\d\.dcm has none"),
        ({"position_mm": None}, "lacks a position"),
        ({"orientation": None}, "lacks a position"),
        ({"spacing_mm": None}, "lacks a position"),
        ({"orientation": (1.0, 0.0, 0.0, 0.5, 0.5, 0.0)}, "perpendicular"),
        ({"spacing_mm": (0.0, 0.5)}, "cannot be"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_an_image_that_does_not_belong_is_refused(changes, reason, place):
    headers = stack(range(0, 25, 5))
    headers[place] = replace(headers[place], **changes)
    with pytest.raises(SeriesError, match=reason):
        arrange(headers)


@pytest.mark.parametrize("orientation", [(1.0, 0, 0, 0, 0, -1.0), (0, 1.0, 0, 0, 0, -1.0)])
def test_coronal_and_sagittal_series_are_refused(orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    headers = [header(i, tuple(map(float, 5.0 * i * normal)), orientation=orientation) for i in range(4)]
    with pytest.raises(SeriesError, match="90 degrees from axial"):
        arrange(headers)


def test_a_single_slice_and_a_missing_frame_of_reference_are_noted():
    assert codes(arrange(stack([0]))) == ["single_slice"]
    assert codes(arrange(stack([0, 5], frame_of_reference_uid=""))) == ["no_frame_of_reference"]


def test_losses_in_the_source_are_noted():
    assert codes(arrange(stack([0, 5], lossy=True))) == ["lossy"]


def test_no_images_are_refused():
    with pytest.raises(SeriesError, match="no image"):
        arrange([])
