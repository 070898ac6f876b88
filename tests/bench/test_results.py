"""The JSON survives the round trip, holds no NaN, and refuses what it is not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccg_bench.latency import Latency
from sccg_bench.results import Results, Row, finite, paper_row, read_results, with_speedups, write_results
from sccg_runtime.errors import InputError

LATENCY = Latency(p50=10.0, p90=11.0, p99=None, min=9.0, mean=10.2, n=64, blocks=6)
ROW = Row(name="int8", engine="openvino", device="cpu", size=(512, 512), latency_ms=LATENCY, quality={"ssim": 0.5})
RESULTS = Results(machine={"cpu": "x"}, provenance={"seed": 0}, rows=(ROW, paper_row()), direction="mr2ct")


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", RESULTS)
    assert read_results(tmp_path / "r.json") == RESULTS


def test_unknown_keys_are_ignored_everywhere() -> None:
    values = RESULTS.to_dict()
    values["new"] = values["rows"][0]["new"] = values["rows"][0]["latency_ms"]["new"] = 1
    assert Results.from_json(json.dumps(values)) == RESULTS


def test_there_is_no_nan_and_no_infinity() -> None:
    row = Row(name="x", quality={"psnr_db": math.inf, "ssim": math.nan}, precision_ran={"int8": np.int64(3)})
    values = json.loads(Results(machine={}, provenance={"a": (np.float32("nan"),)}, rows=(row,)).to_json())
    assert values["rows"][0]["quality"] == {"psnr_db": None, "ssim": None}
    assert values["rows"][0]["precision_ran"] == {"int8": 3}
    assert values["provenance"]["a"] == [None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "sccg-bench/2"}, "schema 'sccg-bench/2'"),
        ({"machine": None}, "machine"),
        ({"rows": {}}, "rows"),
        ({"rows": [1]}, "rows"),
        ({"rows": [{}]}, "no name"),
        ({"rows": [{"name": "m", "status": "great"}]}, "status 'great'"),
        ({"rows": [{"name": "m", "latency_ms": 3}]}, "latency_ms is not an object"),
        ({"rows": [{"name": "m", "latency_ms": {"p50": "3"}}]}, "p50 is not a number"),
        ({"rows": [{"name": "m", "latency_ms": {}}]}, "no p50"),
        ({"rows": [{"name": "m", "latency_ms": {"p50": float("inf")}}]}, "no p50"),
        ({"rows": [{"name": "m", "size": [1]}]}, "size is not"),
        ({"rows": [{"name": "m", "quality": {"ssim": "good"}}]}, "quality.ssim is not a number"),
        ({"rows": [{"name": "m", "quality": []}]}, "quality is not an object"),
        ({"rows": [{"name": "m", "per_slice": [1]}]}, "per_slice"),
        ({"rows": [{"name": "m", "per_slice": [{"drift": 3}]}]}, "per_slice: drift is not an object"),
        ({"rows": [{"name": "m", "per_patient": [{"quality": {"ssim": "a"}}]}]}, "quality.ssim is not a number"),
        ({"rows": [{"name": "m", "per_slice": [{"spot": {"row": []}}]}]}, "spot.row is not a number"),
        ({"rows": [{"name": "m", "quality": {"ssim": 10**400}}]}, "quality.ssim is not a number"),
        ({"rows": [{"name": "m", "per_slice": [{"counted": [1]}]}]}, "per_slice: counted is not a list of names"),
        ({"rows": [{"name": "m", "per_slice": [{"not_finite": 5}]}]}, "per_slice: not_finite is not a list of names"),
        ({"rows": [{"name": "m", "per_patient": [{"case": 7}]}]}, "per_patient: a case has no name"),
        ({"rows": [{"name": "m", "per_slice": [{"slice": "1"}]}]}, "per_slice: a case has no name"),
        ({"rows": [{"name": "m", "counts": {"slices": "<b>"}}]}, "counts.slices is not a number"),
        ({"rows": [{"name": "m", "landmarks": {"worst": 1}}]}, "landmarks are not text"),
        *[({"rows": [{"name": "m", name: 5}]}, f"{name} is not text") for name in ("note", "engine", "device")],
        *[({"rows": [{"name": "m", name: []}]}, f"{name} is not text") for name in ("precision", "detail_against")],
        ({"direction": "up"}, "direction 'up'"),
        ({"warnings": "x"}, "warnings"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(RESULTS.to_dict() | change))
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


def test_a_number_beyond_floats_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(RESULTS.to_json().replace('"ssim": 0.5', '"ssim": 1e999'))
    with pytest.raises(InputError, match=r"quality\.ssim is not a number"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null"])
def test_what_is_not_results_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError):
        read_results(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_speedups_come_from_the_same_run_device_and_size_only() -> None:
    def row(name: str, p50: float, **given: object) -> Row:
        values = {"engine": "torch", "precision": "fp32", "device": "cpu", "size": (512, 512)} | given
        return Row(name=name, latency_ms=Latency(p50, p50, None, p50, p50, 10), **values)  # type: ignore[arg-type]

    rows = (row("t", 2000), row("s", 10), row("g", 5, device="cuda"), row("n", 4, size=(256, 256)), paper_row())
    teacher, student, gpu, small, paper = with_speedups(rows, "t")
    assert (teacher.speedup_vs_teacher, student.speedup_vs_teacher, student.speedup_vs_paper) == (1, 200, 273)
    assert (gpu.speedup_vs_teacher, gpu.speedup_vs_paper) == (None, 546)
    assert (small.speedup_vs_teacher, small.speedup_vs_paper) == (None, None)
    assert (paper.speedup_vs_paper, paper.speedup_vs_teacher) == (None, None)
    on_gpu = row("t on CUDA", 40, device="cuda", role="teacher engine")
    half = row("t on CUDA, FP16", 20, device="cuda", role="teacher engine", precision="fp16")
    found = with_speedups((rows[0], rows[1], on_gpu, half, rows[2]), "t")
    assert [each.speedup_vs_teacher for each in found] == [1, 200, 1, 2, 8], "each device has its own teacher"
    assert with_speedups((row("t", 2000, engine="openvino"), rows[1]), "t")[1].speedup_vs_teacher is None
    assert with_speedups(rows, None)[1].speedup_vs_teacher is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_finite_makes_anything_writable(value: object) -> None:
    json.loads(json.dumps(finite(value), allow_nan=False))


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=4), st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_round_trip_of_figures(p50s: list[float], quality: dict[str, float]) -> None:
    rows = tuple(
        Row(name=f"m{index}", latency_ms=Latency(p50, None, None, None, None, None), quality=dict(quality))
        for index, p50 in enumerate(p50s)
    )
    once = Results.from_json(Results(machine={}, provenance={}, rows=rows).to_json())
    assert Results.from_json(once.to_json()) == once
    assert [row.latency_ms.p50 for row in once.rows if row.latency_ms] == p50s
