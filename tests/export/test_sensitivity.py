"""The layer that eight bits ruin is found by measuring, and it is the one that goes back to float."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from ruined import node_of, with_outlier
from small_models import fresh

from sccg_bench.quality import QualityResult
from sccg_export.calibration import Calibration
from sccg_export.export import export
from sccg_export.fallback import MAX_PUT_BACK, fall_back
from sccg_export.gate import DriftBudget
from sccg_export.graph import export_graph
from sccg_export.request import DriftRefusedError, ExportRequest, ExportResult
from sccg_export.sensitivity import hardest, rank_layers
from sccg_export.targets import load_target
from sccg_export.workshop import Engine, Workshop
from sccg_runtime.bundle import DRIFT_MEMBER
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import Checkpoint

targets = pytest.mark.parametrize("target", ["openvino", "ort"])


@pytest.mark.parametrize("exported", ["openvino-int8"], indirect=True)
def test_a_layer_ruined_by_eight_bits_ranks_first_and_alone_goes_back_to_float(
    exported: tuple[ExportRequest, ExportResult, Path], student: Checkpoint, tmp_path: Path
) -> None:
    wanted, plain = exported[0], exported[1].bundle.contract
    reached = plain.drift["engine_drift"]["engine_to_fp32_psnr_db"]
    budget = replace(wanted.budget, min_mean_psnr_db=reached - 3, min_worst_psnr_db=20)
    ruined = with_outlier(student, 0)
    name = node_of(export_graph(ruined.generator, (64, 64)), "blocks.0.conv2.weight")

    said: list[str] = []
    made = export(replace(wanted, checkpoint=ruined, budget=budget), tmp_path / "healed.sccg", said.append).bundle
    drift = made.contract.drift
    told = drift["put_back"]
    (back,) = told["layers"]
    assert told["ranking"][0] == {"layer": name, "alone_psnr_db": back["alone_psnr_db"]}
    assert back["layer"] == name
    assert back["psnr_db"] == pytest.approx(drift["engine_drift"]["engine_to_fp32_psnr_db"])
    assert back["gain_db"] == pytest.approx(back["psnr_db"] - told["without"]["psnr_db"])
    assert back["gain_db"] > 3
    assert f"below {budget.min_mean_psnr_db:g}" in told["without"]["refused"]
    assert name in drift["float_layers"]
    assert name not in plain.drift["float_layers"]
    assert plain.precision_ran is not None
    assert made.contract.precision_ran is not None
    assert made.contract.precision_ran["int8"] == plain.precision_ran["int8"] - 1
    assert told["cost"]["size"] == [64, 64]
    assert min(told["cost"]["without_p50_ms"], told["cost"]["with_p50_ms"]) > 0
    assert json.loads(made.members[DRIFT_MEMBER])["put_back"] == told
    count = len(told["ranking"])
    assert sum(line.startswith("sensitivity ") for line in said) == count
    assert any(f"sensitivity {count}/{count}" in line for line in said)
    assert any(line.startswith(f"{name} back in float") and "within budget" in line for line in said)
    assert "put_back" not in plain.drift


@pytest.mark.parametrize("exported", ["ort-int8"], indirect=True)
def test_where_one_is_not_enough_the_next_in_the_ranking_follows(
    exported: tuple[ExportRequest, ExportResult, Path], student: Checkpoint
) -> None:
    """ONNX Runtime rounds a map if its maker or its reader works in eight bits: both must go back."""
    wanted, plain = exported[0], exported[1]
    reached = plain.quality.summary.engine_drift["engine_to_fp32_psnr_db"]
    assert reached is not None
    budget = replace(wanted.budget, min_mean_psnr_db=reached - 3, min_worst_psnr_db=20)
    ruined = with_outlier(student, 0)
    graph = export_graph(ruined.generator, (64, 64))
    workshop = Workshop(replace(wanted, checkpoint=ruined, budget=budget), graph)
    found = fall_back(workshop, workshop.engine(), lambda line: None)
    assert found.engine.refused is None
    names = {node_of(graph, f"blocks.0.{part}.weight") for part in ("conv1", "conv2")}
    assert {one.layer for one in found.layers} == names
    assert [one.layer for one in found.layers] == [one.layer for one in found.ranking[:2]]
    first, second = found.layers
    assert second.gain_db > 3
    assert second.psnr_db == pytest.approx(first.psnr_db + second.gain_db)


def test_what_no_layer_can_mend_is_refused_and_the_earlier_bundle_stays(
    request_for: Callable[..., ExportRequest], student: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sccg_export.fallback.MAX_PUT_BACK", 2)
    out = tmp_path / "model.sccg"
    out.write_bytes(b"the earlier bundle")
    before = sha256(out)
    wanted = request_for(checkpoint=with_outlier(student, 0), budget=DriftBudget(min_mean_psnr_db=95))
    with pytest.raises(DriftRefusedError, match=r"\(below 95\).*; worst case\d+/") as caught:
        export(wanted, out)
    assert caught.value.exit_code == 3
    assert caught.value.result.quality.slices
    assert sha256(out) == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.sccg"]


def test_a_float32_engine_over_budget_is_refused_at_once(
    request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(DriftRefusedError):
        export(request_for("ort", "fp32", budget=DriftBudget(max_delta_mae_u8=-1)), tmp_path / "a.sccg", said.append)
    assert not any("sensitivity" in line for line in said)


@pytest.mark.parametrize(("layers", "builds"), [(5, 4), (40, MAX_PUT_BACK)])
def test_rebuilds_are_bounded_and_one_layer_stays_in_eight_bits(layers: int, builds: int) -> None:
    names = tuple(f"layer{number}" for number in range(layers))
    tried: list[tuple[str, ...]] = []

    def build(kept: tuple[str, ...]) -> SimpleNamespace:
        tried.append(kept)
        return SimpleNamespace(psnr_db=30.0 + len(kept), refused="too much")

    def quick(kept: tuple[str, ...], hard: list[int]) -> float:
        assert hard == [1, 0]
        (alone,) = set(names) - set(kept)
        return float(alone.removeprefix("layer"))

    first = SimpleNamespace(
        psnr_db=30.0, refused="too much", built=SimpleNamespace(int8_layers=names), quality=scored(40.0, 35.0)
    )
    workshop = cast("Workshop", SimpleNamespace(engine=build, quick_psnr_db=quick))
    found = fall_back(workshop, cast("Engine", first), lambda line: None)
    assert found.engine.refused == "too much"
    assert tried == [names[: count + 1] for count in range(builds)]
    assert [one.gain_db for one in found.layers] == [1.0] * builds


def test_ranking_builds_one_engine_per_layer_and_puts_the_most_harmful_first() -> None:
    alone = {"a": 60.0, "b": 31.5, "c": 47.0}

    def psnr_db(kept: tuple[str, ...]) -> float:
        (layer,) = set(alone) - set(kept)
        return alone[layer]

    said: list[str] = []
    ranking = rank_layers(tuple(alone), psnr_db, said.append)
    assert [(one.layer, one.alone_psnr_db) for one in ranking] == [("b", 31.5), ("c", 47.0), ("a", 60.0)]
    assert said[1] == "sensitivity 2/3: b alone in int8: 31.5 dB"


def test_the_hardest_slices_are_those_farthest_from_the_fp32_network() -> None:
    assert hardest(scored(50.0, None, 40.0, 45.0), 2) == [2, 3]


@targets
def test_layers_are_kept_in_float_by_their_name_in_the_graph(
    target: str, request_for: Callable[..., ExportRequest], student: Checkpoint
) -> None:
    module = load_target(target, "int8")
    graph = export_graph(student.generator, (64, 64))
    calibration = request_for(target).calibration
    everything = module.build(graph, "int8", (64, 64), calibration)
    in_graph = {node.name: node.op_type for node in graph.model.graph.node}
    assert {in_graph[name] for name in everything.int8_layers} == {"Conv", "Add"}
    convolution = node_of(graph, "blocks.1.conv1.weight")
    total = next(name for name in everything.int8_layers if in_graph[name] == "Add")
    fewer = module.build(graph, "int8", (64, 64), calibration, keep_float=(convolution, total))
    gone = {convolution, total} if target == "openvino" else {convolution}  # ORT's sum reads what others rounded
    assert set(everything.int8_layers) - set(fewer.int8_layers) == gone
    assert set(fewer.float_layers) - set(everything.float_layers) == {convolution}
    with pytest.raises(InputError, match="no operation named nothing, nowhere to keep in float"):
        module.build(graph, "int8", (64, 64), calibration, keep_float=("nowhere", convolution, "nothing"))


@targets
def test_transposed_convolutions_have_the_graphs_name_too(target: str) -> None:
    graph = export_graph(fresh("resnet-4x1-bn"), (32, 32))
    transposed = {node.name for node in graph.model.graph.node if node.op_type == "ConvTranspose"}
    calibration = Calibration([np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 32, 32)], ("a",), 0)
    module = load_target(target, "int8")
    made = module.build(graph, "int8", (32, 32), calibration)
    assert transposed <= {*made.int8_layers, *made.float_layers}
    kept = module.build(graph, "int8", (32, 32), calibration, keep_float=tuple(transposed))
    assert transposed <= set(kept.float_layers)
    assert not transposed & set(kept.int8_layers)


def scored(*values: float | None) -> QualityResult:
    slices = [SimpleNamespace(engine_drift={"engine_to_fp32_psnr_db": value}) for value in values]
    return cast("QualityResult", SimpleNamespace(slices=slices))
