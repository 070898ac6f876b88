"""``sccg-compress reader-study``: page and key from a bundle and a phantom, and the score of answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, Lab

from sccg_runtime.bundle import read_bundle
from sccg_runtime.engine import open_session
from sccg_teacher_student.data.source import open_data


def make(run: Cli, lab: Lab, bundles: Path, out: Path, *more: object) -> dict[str, Any]:
    said = run("reader-study", "--bundle", bundles / "small.sccg", "--data", lab.phantom, "--out", out, *more)
    assert said.code == 0, said
    key = out.with_name(f"{out.stem}-key.json")
    assert str(key) in said.out
    return dict(json.loads(key.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_page_is_made_by_the_bundle_and_answers_are_scored(
    run: Cli, lab: Lab, bundles: Path, tmp_path: Path
) -> None:
    page = tmp_path / "study.html"
    key = make(run, lab, bundles, page, "--slices", 3, "--seed", 5)
    text = page.read_text(encoding="utf-8")
    cases = [path.name for path in (lab.phantom / "test").iterdir()]
    assert {item["case"] for item in key["items"].values()} <= set(cases), "readers see the test split only"
    assert [item["kind"] for item in key["items"].values()].count("real") == 3
    assert len(key["items"]) == 6
    assert key["made_from"]["simulated_data"] is True
    for hidden in (*cases, "small.sccg", key["made_from"]["sha256"]):
        assert hidden not in text

    from sccg_bench.reader.study import grey_png

    bundle, source = read_bundle(bundles / "small.sccg"), open_data(lab.phantom)
    found = re.search(r'id="values">(.*?)</script>', text, re.S)
    assert found is not None
    shown = {item["id"]: item["src"] for item in json.loads(found[1])["items"]}
    import base64

    for name, item in key["items"].items():
        pair = source.load(item["case"], item["slice"])
        assert pair.mr is not None
        image = pair.ct if item["kind"] == "real" else open_session(bundle, size=(64, 64))(pair.mr)
        assert image is not None
        assert shown[name].endswith(base64.b64encode(grey_png(image)).decode()), item

    again = make(run, lab, bundles, tmp_path / "again.html", "--slices", 3, "--seed", 5)
    assert again == key
    said = run("reader-study", "--bundle", bundles / "small.sccg", "--data", lab.phantom, "--out", page)
    said.refused("exists", "--force")

    answers = {
        name: 5 if item["kind"] == "real" else 4 - index % 2 for index, (name, item) in enumerate(key["items"].items())
    }
    saved = tmp_path / "answers.json"
    values = {"schema": "sccg-reader-answers/1", "study": key["study"], "reader": "a", "answers": answers}
    saved.write_text(json.dumps(values), encoding="utf-8")
    said = run("reader-study", "score", saved, "--key", tmp_path / "study-key.json")
    assert said.code == 0, said
    assert "real       100.0% positive [43.9% to 100.0%], 3 of 3" in said.out
    assert "positive: answers 4 and 5" in said.out
    assert "63% of synthetic (cited" in said.out
    said = run("reader-study", "score", saved, "--key", tmp_path / "study-key.json", "--json", "-")
    assert json.loads(said.out)["groups"]["real"]["positive"] == 3


def test_cases_that_the_bundle_learned_from_are_told(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    for split, told in (("train", True), ("test", False)):
        out = tmp_path / f"{split}.html"
        wanted = ("--data", lab.phantom, "--out", out, "--slices", 1, "--split", split)
        said = run("reader-study", "--bundle", bundles / "small.sccg", *wanted)
        assert said.code == 0, said
        assert ("small.sccg may have learned from 3 of these 3 cases" in said.err) is told


def test_bad_input_is_one_line(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    bundle = ("--bundle", bundles / "small.sccg")
    run("reader-study").refused("--bundle FILE.sccg and --out")
    run("reader-study", *bundle).refused("--out")
    out = tmp_path / "x.html"
    run("reader-study", *bundle, "--data", lab.phantom, "--out", out, "--slices", 99).refused("has 4 pairs")
    run("reader-study", "--bundle", tmp_path / "no.sccg", "--data", lab.phantom, "--out", out).refused("no.sccg")
    run("reader-study", "score", tmp_path / "no.json", "--key", tmp_path / "key.json").refused("key.json")
    folder = tmp_path / "folder.html"
    folder.mkdir()
    run("reader-study", *bundle, "--data", lab.phantom, "--out", folder, "--force").refused("is a folder")
    assert not (tmp_path / "folder-key.json").exists()
    run("reader-study", *bundle, "--out", out, "score", "a", "--key", "b").refused("one at a time")
    assert not list(tmp_path.glob("x*"))


def test_cases_without_a_real_image_are_left_out(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    whole, *others = (lab.phantom / "train").iterdir()
    shutil.copytree(whole, tmp_path / "data" / "whole")
    for other in others:
        shutil.copytree(other / "mr", tmp_path / "data" / other.name / "mr")
    wanted = ("--bundle", bundles / "small.sccg", "--data", tmp_path / "data", "--out", tmp_path / "x.html")
    pairs = len(list((whole / "mr").iterdir()))
    run("reader-study", *wanted, "--slices", pairs + 1).refused(f"has {pairs} pairs of MR and CT")
    assert run("reader-study", *wanted).code == 0
    key = json.loads((tmp_path / "x-key.json").read_text())
    assert {item["case"] for item in key["items"].values()} == {"whole"}


def test_cases_without_pairs_are_refused(run: Cli, lab: Lab, bundles: Path, tmp_path: Path) -> None:
    alone = tmp_path / "data" / "one"
    case = next((lab.phantom / "test").iterdir())
    shutil.copytree(case / "mr", alone / "mr")
    said = run("reader-study", "--bundle", bundles / "small.sccg", "--data", alone.parent, "--out", tmp_path / "x.html")
    said.refused()
    assert not list(tmp_path.glob("x*"))
