"""The page tells nobody what is real, works by keyboard, and the score is what the answers and the key say."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import bench_fakes as fakes
import numpy as np
import pytest
from browser import needs_chromium, visit
from PIL import Image

from sccg_bench.reader.score import Score, score, wilson
from sccg_bench.reader.study import Level, Study, key_json, make_study, page
from sccg_runtime.errors import InputError


def levels(count: int = 6) -> list[Level]:
    """Real slices with texture, synthetic ones without."""
    return [
        Level("Doe^Jane", f"{index:03d}", fakes.head(64, seed=index), fakes.head(64, seed=index, contrast=0))
        for index in range(count)
    ]


STUDY = make_study(levels(), "mr2ct", 7, "secret")


def values_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="values">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_gives_nothing_away() -> None:
    text = page(STUDY)
    for word in ("Doe", "real_", "synthetic", "seed", "secret", "kind", ".sccg", "http://", "https://"):
        assert word not in text, word
    values = values_of(text)
    assert set(values) == {"study", "schema", "items"}
    assert {frozenset(item) for item in values["items"]} == {frozenset({"id", "src"})}
    assert len({len(item["src"]) for item in values["items"]}) == 1, "the length of a picture would tell its noise"
    for item in values["items"]:
        picture = Image.open(io.BytesIO(base64.b64decode(item["src"].partition(",")[2])))
        assert (picture.format, picture.mode, picture.size, picture.info) == ("PNG", "L", (64, 64), {})


def test_the_seed_alone_tells_neither_order_nor_names() -> None:
    again, other = make_study(levels(), "mr2ct", 7, "secret"), make_study(levels(), "mr2ct", 7, "another bundle")
    assert again == STUDY
    assert {each.id for each in other.shown}.isdisjoint(each.id for each in STUDY.shown)
    assert [each.kind for each in other.shown] != [each.kind for each in STUDY.shown]


def test_every_level_is_shown_once_real_and_once_synthetic_and_never_twice_in_a_row() -> None:
    shown = STUDY.shown
    assert sorted((each.slice, each.kind) for each in shown) == sorted(
        (f"{index:03d}", kind) for index in range(6) for kind in ("real", "synthetic")
    )
    assert len({each.id for each in shown}) == 12
    assert all(one.slice != two.slice for one, two in pairwise(shown))
    assert len(make_study(levels(1), "mr2ct", 0, "").shown) == 2


def test_slices_of_two_sizes_would_tell_and_are_refused() -> None:
    with pytest.raises(InputError, match="one size"):
        make_study([*levels(1), Level("b", "1", fakes.head(32), fakes.head(32))], "mr2ct", 0, "")
    with pytest.raises(InputError, match="one size"):
        make_study([], "mr2ct", 0, "")


@pytest.mark.parametrize(("direction", "target"), [("mr2ct", "CT"), ("ct2mr", "MR")])
def test_the_question_is_the_papers(direction: Any, target: str) -> None:
    text = page(make_study(levels(1), direction, 0, ""))
    assert f"How similar is this image to a real {target}?" in text
    assert text.count('class="step"') == 5
    assert "Simulated heads" not in text
    assert "Simulated heads" in page(STUDY, simulated=True)


@needs_chromium
def test_in_a_browser_the_keys_answer_and_the_file_holds_the_answers(tmp_path: Path) -> None:
    (tmp_path / "study.html").write_text(page(STUDY), encoding="utf-8")
    plain = visit(tmp_path / "study.html", tmp_path)
    assert plain.console == (), "the page's own script must pass its own policy"
    assert "Image 1 of 12, 0 answered" in plain.dom
    assert re.search(r'<img[^>]*src="data:image/png;base64,', plain.dom)
    keys = "12345" * 2 + "4"
    script = """
        HTMLAnchorElement.prototype.click = function () { this.dataset.clicked = "yes"; };
        URL.createObjectURL = (blob) => { blob.text().then((text) => { document.title = text; }); return "data:,"; };
        const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        press("ArrowLeft"); press("7");
        for (const key of "KEYS") press(key);
        press("ArrowLeft"); press("5");
        press("2");
        const reader = document.getElementById("reader");
        reader.value = "R 1";
        reader.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
        document.getElementById("save").click();
    """.replace("KEYS", keys)
    used = visit(tmp_path / "study.html", tmp_path, script)
    assert used.console == ()
    title = re.search(r"<title>(.*?)</title>", used.dom, re.S)
    assert title is not None
    told = json.loads(title[1])
    ids = [each.id for each in STUDY.shown]
    expected = [*map(int, "1234512345"), 5, 2]
    assert told["answers"] == dict(zip(ids, expected, strict=True))
    assert (told["reader"], told["study"]) == ("R 1", STUDY.id)
    assert "12 answered" in used.dom
    assert f"answers-{STUDY.id}-R_1.json" in used.dom
    saved = tmp_path / "answers.json"
    saved.write_text(title[1], encoding="utf-8")
    (tmp_path / "key.json").write_text(key_json(STUDY, {}), encoding="utf-8")
    assert score(tmp_path / "key.json", [saved]).missing == {}


def written(folder: Path, name: str, answers: Any, **given: Any) -> Path:
    path = folder / f"{name}.json"
    values = {"schema": "sccg-reader-answers/1", "study": STUDY.id, "reader": name, "answers": answers}
    path.write_text(json.dumps(values | given), encoding="utf-8")
    return path


def answered(real: int, synthetic: int, study: Study = STUDY) -> dict[str, Any]:
    return {each.id: real if each.kind == "real" else synthetic for each in study.shown}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(key_json(STUDY, {"bundle": "b"}), encoding="utf-8")
    return path


def test_answers_4_and_5_are_positive(tmp_path: Path, key: Path) -> None:
    one = answered(5, 3)
    synthetic = [each.id for each in STUDY.shown if each.kind == "synthetic"]
    one[synthetic[0]] = 4
    two = answered(4, 4)
    del two[synthetic[1]]
    found = score(key, [written(tmp_path, "r1", one), written(tmp_path, "r2", two)])
    assert isinstance(found, Score)
    real, made = found.groups["real"], found.groups["synthetic"]
    assert (real.positive, real.answers, real.share) == (12, 12, 1.0)
    assert (made.positive, made.answers) == (6, 11)
    assert made.steps == (0, 0, 5, 6, 0)
    assert found.missing == {"r2": 1}
    assert found.readers["r1"]["synthetic"].positive == 1
    told = found.to_dict()
    assert told["paper"] == {"share": 0.63, "status": "cited", "of": "synthetic", "readers": 10}
    assert told["positive_from"] == 4


@pytest.mark.parametrize(("positive", "answers"), [(0, 10), (10, 10), (8, 10), (63, 100), (1, 1)])
def test_the_interval_is_wilsons_formula(positive: int, answers: int) -> None:
    share, z = positive / answers, 1.959963984540054
    middle = share + z**2 / (2 * answers)
    half = z * np.sqrt(share * (1 - share) / answers + z**2 / (4 * answers**2))
    low, high = wilson(positive, answers)
    assert low == pytest.approx((middle - half) / (1 + z**2 / answers), abs=1e-9)
    assert high == pytest.approx((middle + half) / (1 + z**2 / answers), abs=1e-9)


def test_what_does_not_fit_the_key_is_one_line(tmp_path: Path, key: Path) -> None:
    good = written(tmp_path, "good", answered(5, 4))
    cases = [
        (written(tmp_path, "other", answered(5, 4), study="another"), "another study"),
        (written(tmp_path, "unknown", {"nobody": 3}), "'nobody' is not in the key"),
        (written(tmp_path, "six", answered(6, 4)), "answer 6 is not one of 1 to 5"),
        (written(tmp_path, "true", answered(True, 4)), "answer True"),
        (written(tmp_path, "list", []), "answers is not an object"),
        (written(tmp_path, "schema", {}, schema="x"), "has schema 'x'"),
        (written(tmp_path, "again", answered(5, 5), reader="good"), "'good' is the same reader"),
        (written(tmp_path, "case", answered(5, 5), reader="GOOD"), "'good' is the same reader"),
        (written(tmp_path, "nameless", answered(5, 4), reader=""), "has the same answers"),
        (written(tmp_path, "half-way", dict(list(answered(5, 4).items())[:3]), reader=""), "has the same answers"),
        (tmp_path / "gone.json", "No such file"),
    ]
    for path, reason in cases:
        with pytest.raises(InputError, match=reason):
            score(key, [good, path])
    unnamed = [written(tmp_path, name, answered(5, 4), reader=" ") for name in ("first", "second")]
    with pytest.raises(InputError, match="the same answers"):
        score(key, unnamed)
    with pytest.raises(InputError, match="has the same answers"):
        score(key, [unnamed[0], good])
    assert len(score(key, [good, written(tmp_path, "agrees", answered(5, 4))]).readers) == 2
    spoiled = written(tmp_path, "spoiled", answered(5, 4), reader="x\n\x1b[31m y")
    assert set(score(key, [good, spoiled]).readers) == {"good", "x [31m y"}
    with pytest.raises(InputError, match="no answer to any real"):
        score(key, [written(tmp_path, "none", {})])
    with pytest.raises(InputError, match="schema 'sccg-reader-answers/1'"):
        score(good, [good])
    for kind in ("odd", ["real"]):
        key.write_text(json.dumps(json.loads(key.read_text()) | {"items": {"a": {"kind": kind}}}), encoding="utf-8")
        with pytest.raises(InputError, match="key is damaged"):
            score(key, [good])
