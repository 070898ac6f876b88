import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_runtime.contract import NULLABLE, Contract
from sccg_runtime.errors import BundleError

NAMES = [field.name for field in fields(Contract)]


def test_json_round_trip_keeps_everything(make):
    for contract in (make.contract(), make.ct2mr(trained_spacing_mm=(1.0, 0.9), input_intensity=make.CT_DISPLAY)):
        assert Contract.from_json(contract.to_json()) == contract


@given(
    stride=st.integers(1, 32),
    tiles=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    spacing=st.none() | st.tuples(st.floats(0.05, 10), st.floats(0.05, 10)),
    student=st.text(max_size=30),
)
def test_json_round_trip_holds_for_any_size_and_name(make, stride, tiles, spacing, student):
    contract = make.contract(
        stride=stride,
        engine_size=(stride * tiles[0], stride * tiles[1]),
        trained_size=tiles,
        trained_spacing_mm=spacing,
        student=student,
    )
    assert Contract.from_json(contract.to_json().encode()) == contract


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_key_is_refused(make, name):
    values = json.loads(make.contract().to_json())
    del values[name]
    with pytest.raises(BundleError, match="format" if name == "format_version" else name):
        Contract.from_json(json.dumps(values))


@pytest.mark.parametrize("version", [0, 2, True, 1.0, "1", None])
def test_another_format_version_is_refused_also_where_it_only_looks_like_this_one(make, version):
    values = json.loads(make.contract().to_json()) | {"format_version": version}
    with pytest.raises(BundleError, match=r"bundle format .* is not 1: export it again"):
        Contract.from_json(json.dumps(values))


def test_an_unknown_key_is_refused(make):
    values = json.loads(make.contract().to_json()) | {"extra": 1}
    with pytest.raises(BundleError, match="extra"):
        Contract.from_json(json.dumps(values))


@pytest.mark.parametrize("name", sorted(set(NAMES) - NULLABLE))
def test_null_is_refused_where_a_value_must_be_known(make, name):
    values = json.loads(make.contract().to_json()) | {name: None}
    with pytest.raises(BundleError):
        Contract.from_json(json.dumps(values))


@pytest.mark.parametrize("name", sorted(NULLABLE - {"trained_spacing_mm", "opset", "calibration"}))
def test_what_is_not_known_needs_a_reason(make, name):
    values = json.loads(make.contract().to_json()) | {name: None}
    with pytest.raises(BundleError, match=name):
        Contract.from_json(json.dumps(values))
    values["unknown"][name] = "a reason"
    assert getattr(Contract.from_json(json.dumps(values)), name) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"direction": "mr2pet"},
        {"direction": "ct2mr"},
        {"stride": 0},
        {"stride": True},
        {"engine_size": [60, 64]},
        {"engine_size": [64]},
        {"engine_size": [64.0, 64]},
        {"trained_size": [10**400, 64]},
        {"trained_spacing_mm": [10**400, 1]},
        {"target": "cuda"},
        {"precision_asked": "int4"},
        {"precision_ran": {}},
        {"precision_ran": {"int8": "3"}},
        {"drift_measured_on": "graph"},  # a CPU engine is always run where it is exported
        {"members": {"model.xml": "abc"}},
        {"members": {"model.xml": 1}},
        {"input_intensity": {"modality": "MR", "kind": "hu"}},
        {"input_statistics": {"slices": 1}},
        {"input_statistics": []},
        {"simulated_data": 1},
        {"unknown": {"student": "no idea"}},
    ],
)
def test_wrong_values_are_refused(make, changes):
    values = json.loads(make.contract().to_json()) | changes
    with pytest.raises(BundleError):
        Contract.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format_version": NaN}', "[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_contract_is_refused(text):
    with pytest.raises(BundleError):
        Contract.from_json(text)


@pytest.mark.parametrize("number", ["NaN", "1e999", "-1e999"])
def test_a_number_that_is_not_finite_is_refused(make, number):
    text = make.contract().to_json().replace('"to_teacher_psnr_db": 40.0', f'"to_teacher_psnr_db": {number}')
    assert number in text
    with pytest.raises(BundleError):
        Contract.from_json(text)


def test_intensities_must_fit_the_direction(make):
    with pytest.raises(BundleError, match="direction"):
        replace(make.contract(), direction="ct2mr")
