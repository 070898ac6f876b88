"""``sccg-compress compare``: exit codes that a CI can trust, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli

RESULTS = Path(__file__).parents[2] / "results"
INT8 = next(
    row["name"]
    for row in json.loads((RESULTS / "two-hours.json").read_text(encoding="utf-8"))["rows"]
    if (row["engine"], row["precision"]) == ("openvino", "int8")
)


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    """A committed mr2ct run with one bundle half as fast and worse."""
    values = json.loads((RESULTS / "two-hours.json").read_text(encoding="utf-8"))
    for row in values["rows"]:
        if row["name"] == INT8:
            row["latency_ms"]["p50"] *= 2
            row["drift"]["delta_psnr_db"] = -0.3
    path = tmp_path / "slower.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_run_against_itself_passes(run: Cli) -> None:
    same = RESULTS / "two-hours.json"
    said = run("compare", same, same, "--fail-if", "latency_ms.p50 > 1.1x", "--fail-if", "delta_psnr_db < -0.1")
    assert said.code == 0, said
    line = next(line for line in said.out.splitlines() if line.startswith(INT8) and "latency_ms.p50" in line)
    assert "1.000x" in line
    assert "kept: fails if " in line
    assert "not checked: teacher, PyTorch: delta_psnr_db < -0.1: null in A and in B" in said.err


def test_a_regression_ends_with_exit_code_3_and_names_the_rows(run: Cli, slower: Path, tmp_path: Path) -> None:
    rules = ("--fail-if", "latency_ms.p50 > 1.1x", "--fail-if", "delta_psnr_db < -0.1")
    out = tmp_path / "outcome.json"
    said = run("compare", RESULTS / "two-hours.json", slower, *rules, "--json", out)
    said.refused(f"{INT8}: latency_ms.p50", f"{INT8}: drift.delta_psnr_db -0.3000", code=3)
    assert ", PyTorch: latency" not in said.err
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["passed"] is False
    broken = [each for each in told["figures"] if each["verdict"] == "broken"]
    assert [(each["row"], each["metric"]) for each in broken] == [
        (INT8, "latency_ms.p50"),
        (INT8, "drift.delta_psnr_db"),
    ]
    assert broken[0]["ratio"] == pytest.approx(2)


def test_json_on_stdout_is_nothing_but_json(run: Cli, slower: Path) -> None:
    said = run("compare", RESULTS / "two-hours.json", slower, "--json", "-")
    assert said.code == 0, said
    assert json.loads(said.out)["schema"] == "sccg-compare/1"


def test_bad_input_is_one_line_and_exit_code_2(run: Cli, tmp_path: Path) -> None:
    mr2ct, phantom = (RESULTS / f"{name}.json" for name in ("two-hours", "phantom"))
    run("compare", mr2ct, mr2ct, "--fail-if", "speed > 3").refused("'speed' is in neither file")
    run("compare", mr2ct, mr2ct, "--fail-if", "p50 is slow").refused("write METRIC > NUMBER")
    fewer = json.loads(mr2ct.read_text(encoding="utf-8"))
    fewer["rows"] = [row for row in fewer["rows"] if row["name"] != INT8]
    (tmp_path / "fewer.json").write_text(json.dumps(fewer), encoding="utf-8")
    run("compare", mr2ct, tmp_path / "fewer.json").refused(f"B has no row '{INT8}'")
    run("compare", phantom, mr2ct, "--row", "nothing").refused("A has no row 'nothing'")
    other = json.loads(mr2ct.read_text(encoding="utf-8")) | {"direction": "ct2mr"}
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    run("compare", mr2ct, tmp_path / "other.json", "--row", INT8, "--fail-if", "p50 > 2x").refused(
        "directions differ", "--force"
    )
    run("compare", mr2ct, tmp_path / "gone.json").refused("gone.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    run("compare", mr2ct, tmp_path / "bad.json").refused("not JSON")
