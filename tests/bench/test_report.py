"""Reports say what the results say, name what is cited, escape everything and need no network."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import bench_fakes as fakes
import numpy as np
import pytest
from browser import needs_chromium, visit
from PIL import Image
from report_fakes import EVIL, FOUND, made
from rich.console import Console

from sccg_bench.checks import best_row
from sccg_bench.page import script_hash
from sccg_bench.protocols import Pair
from sccg_bench.report.cells import number
from sccg_bench.report.charts import drift_chart, drift_figure, latency_chart, pareto
from sccg_bench.report.csv import models_csv, slices_csv, write_csv
from sccg_bench.report.html import html, write_html
from sccg_bench.report.markdown import markdown, write_markdown
from sccg_bench.report.sheets import strips
from sccg_bench.report.summary import summarise
from sccg_bench.report.tables import notes, tables
from sccg_bench.report.terminal import show
from sccg_bench.results import Results, Row, not_measured_row, paper_row, read_results, write_results
from sccg_bench.run import BenchResult


class Page(HTMLParser):
    """Collects tags with attributes and checks that they are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", FOUND.results, strips(FOUND))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}], "one script, inside the page"
    policy = next(attributes["content"] or "" for tag, attributes in page.tags if "http-equiv" in attributes)
    assert f"script-src '{script_hash(text)}'" in policy
    assert "default-src 'none'" in policy
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {"href", "srcset", "action", "data", "poster"} & attributes.keys(), tag
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in attributes
        assert not any(key.startswith("on") for key in attributes)
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert not re.search(r"https?://", text)


def test_every_picture_is_a_png_and_has_an_alternative_text() -> None:
    pictures = [attributes for tag, attributes in Page(html(FOUND.results, strips(FOUND))).tags if tag == "img"]
    assert len(pictures) == 1 + 3 * 3  # latency chart, three strips and sliders; one model makes no Pareto front
    for attributes in pictures:
        assert len(attributes["alt"] or "") > 40
        data = base64.b64decode((attributes["src"] or "").partition(",")[2])
        assert Image.open(io.BytesIO(data)).format == "PNG"


def test_everything_foreign_is_escaped() -> None:
    found = made(name=EVIL)
    text = html(found.results, strips(found))
    assert text.count("<script") == 1
    assert "<script>alert" not in text
    assert "".join(Page(text).words).count(EVIL) >= 3
    for line in markdown(found.results).splitlines():
        assert "<script" not in line


def test_markdown_tables_have_one_width_each() -> None:
    lines = markdown(made(name=EVIL).results).splitlines()
    blocks: list[list[int]] = [[]]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].append(len(re.findall(r"(?<!\\)\|", line)))
        elif blocks[-1]:
            blocks.append([])
    widths = [block for block in blocks if block]
    assert len(widths) == len(tables(FOUND.results))
    assert all(len(set(block)) == 1 for block in widths)


@pytest.mark.parametrize("render", [html, markdown])
def test_simulated_data_is_called_so(render) -> None:  # type: ignore[no-untyped-def]
    assert "Simulated data" in render(made(simulated=True).results)
    assert "Simulated data" not in render(FOUND.results)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_terminal_shows_every_row_and_every_reason(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    show(FOUND.results, console)
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for row in FOUND.results.rows:
        assert row.name.split()[0] in shown
    for wanted in ("no CUDA device", "RuntimeError", "2730", "4.50", "Cited, not measured here", "other processes"):
        assert wanted in shown, "no figure is broken over lines"
    assert max(len(line) for line in console.file.getvalue().splitlines()) <= width  # type: ignore[attr-defined]


def test_one_reason_of_several_rows_is_told_once() -> None:
    missing = [not_measured_row(f"cuda {number}", "no CUDA device") for number in range(3)]
    told = notes(replace(FOUND.results, rows=(*missing, paper_row())))
    assert told[0] == ("cuda 0; cuda 1; cuda 2", "not measured", "no CUDA device")
    assert len(told) == 2


def test_reports_of_little_are_still_reports() -> None:
    nothing = Results(machine={}, provenance={}, rows=(paper_row(), Row(name="b", status="failed", note="no")))
    assert best_row(nothing) is None
    assert latency_chart(nothing) is None
    assert drift_chart(nothing) is None
    for text in (html(nothing), markdown(nothing)):
        assert "No model was measured" in text
    show(nothing, Console(file=io.StringIO()))
    only = Results(machine={}, provenance={}, rows=(replace(FOUND.results.rows[2], quality=None, drift=None),))
    assert summarise(only)[1].answer == "Not measured."
    assert summarise(only)[2].answer.startswith("Open")


def test_the_first_card_says_how_many_queries_its_time_is_the_median_of() -> None:
    found = made().results
    (timed,) = (row.latency_ms for row in found.rows if row.name == "int8" and row.latency_ms is not None)
    often = tuple(replace(row, latency_ms=replace(timed, n=1234)) if row.name == "int8" else row for row in found.rows)
    assert summarise(replace(found, rows=often))[0].detail.startswith("p50 of 1,234 queries at 512×512")


def test_names_of_files_that_are_not_utf8_are_written_all_the_same(tmp_path: Path) -> None:
    name = "M\udcfcller"  # how Python reads a folder called by another encoding
    found = made(name=name)
    results = replace(found.results, provenance={"data": name})
    write_results(tmp_path / "result.json", results)
    assert read_results(tmp_path / "result.json").provenance == {"data": name}
    write_html(tmp_path / "report.html", results, strips(found))
    write_markdown(tmp_path / "report.md", results)
    write_csv(tmp_path, results)
    for path in tmp_path.iterdir():
        assert "M\\udcfcller" in path.read_text(encoding="utf-8"), path


def test_landmarks_and_spots_that_are_not_told_are_left_out() -> None:
    int8 = FOUND.results.row("int8")
    assert int8 is not None
    bare = tuple(part | {"spot": {"row": 3}} for part in int8.per_slice)
    for landmarks in ({"best": "a/1"}, {"worst": "a/1", "spot": "a/1"}):
        row = replace(int8, landmarks=landmarks, per_slice=bare)
        text = markdown(replace(FOUND.results, rows=(row,)))
        assert ("Worst slice a/1: " in text) is ("worst" in landmarks)
        assert "Largest local difference " not in text


def test_strips_show_worst_median_and_best() -> None:
    found = made()
    shown = strips(found)
    assert [strip.which for strip in shown] == ["worst", "median", "best"], "the largest spot's slice is one of them"
    assert shown[0].where == found.results.rows[2].landmarks["worst"]
    assert "largest local difference" in shown[0].caption
    assert [Image.open(io.BytesIO(strip.png)).width > 800 for strip in shown] == [True] * 3
    assert strips(found, roles=("teacher",))[0].row == "teacher"


def test_the_slice_of_an_invented_spot_is_named_shown_and_framed() -> None:
    model = FOUND.results.rows[2]
    parts = [dict(part) for part in model.per_slice]
    free = next(part for part in parts if f"{part['case']}/{part['slice']}" not in model.landmarks.values())
    free["spot"] = {"row": 30, "column": 20, "side_px": 2, "difference_u8": -33.0}
    where = f"{free['case']}/{free['slice']}"
    row = replace(model, per_slice=tuple(parts), landmarks=model.landmarks | {"spot": where})
    results = replace(FOUND.results, rows=(FOUND.results.rows[0], row))
    found = replace(FOUND, results=results)
    shown = strips(found)[-1]
    assert (shown.which, shown.where) == ("spot", where)
    assert "largest local difference -33 at row 30, column 20" in shown.alt
    without = replace(row, per_slice=tuple(part | {"spot": None} for part in parts))
    assert strips(replace(FOUND, results=replace(results, rows=(results.rows[0], without))))[-1].png != shown.png
    table = next(each for each in tables(results) if each.title.startswith("Largest local"))
    line = next(dict(zip(table.header, each, strict=True)) for each in table.lines if each[0] == row.name)
    assert (line["slice"], line["difference"], line["row"], line["column"]) == (where, "−33.0", "30", "20")
    assert f"Largest local difference −33 of 255, in {where}." in summarise(results)[1].detail
    listed = next(each for each in lines_of(slices_csv(results)) if each["spot.difference_u8"] == "-33.0")
    assert f"{listed['case']}/{listed['slice']}" == where


def test_strips_do_without_reference_and_teacher() -> None:
    pair = Pair("case", "001", fakes.head(32), None)
    row = Row(name="m", landmarks={"worst": "case/001"})
    found = BenchResult(
        Results(machine={}, provenance={}, rows=(row,), direction="mr2ct"), (pair,), {"m": [fakes.head(32)]}
    )
    assert strips(found)[0].png.startswith(b"\x89PNG")


def test_charts_say_at_which_size_speed_and_fidelity_were_measured() -> None:
    figure = drift_figure(replace(FOUND.results, rows=(*FOUND.results.rows, replace(FOUND.results.rows[2], name="b"))))
    assert figure is not None
    assert "at 512×512" in figure.axes[0].get_xlabel()
    assert "at 64×64" in figure.axes[0].get_ylabel()


def test_charts_are_the_same_bytes_for_the_same_results() -> None:
    two = replace(FOUND.results, rows=(*FOUND.results.rows, replace(FOUND.results.rows[2], name="other")))
    assert latency_chart(two) == latency_chart(two)
    assert drift_chart(two) == drift_chart(two)


def test_pareto_front_holds_what_nothing_beats() -> None:
    points = [(3.0, 30.0), (1.0, 20.0), (2.0, 19.0), (3.0, 31.0), (9.0, 31.0)]
    assert pareto(points) == [(1.0, 20.0), (3.0, 31.0)]


def test_figures_are_written_with_signs_and_without_negative_zero() -> None:
    assert [number(None, 2), number(-0.001, 2, True), number(-1.5, 1, True), number(0.25, 1)] == [
        "–",
        "+0.00",
        "−1.5",
        "0.2",
    ]


def test_every_table_is_rectangular_and_marked() -> None:
    for table in tables(FOUND.results):
        assert len(table.lines) == len(table.marks)
        assert {len(line) for line in table.lines} == {len(table.header)}
        assert max(table.text) < len(table.header)


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_has_a_line_per_model_and_one_per_slice(tmp_path: Path) -> None:
    models = lines_of(models_csv(FOUND.results))
    assert [line["name"] for line in models] == [row.name for row in FOUND.results.rows]
    int8 = models[2]
    row = FOUND.results.rows[2]
    assert float(int8["latency_ms.p50"]) == 4.5
    assert int8["latency_ms.p99"] == ""
    assert (int8["latency_ms.size"], int8["latency_native_ms.size"]) == ("512x512", "64x64")
    assert float(int8["drift.to_teacher_psnr_db"]) == row.drift["to_teacher_psnr_db"]
    assert (int8["status"], int8["precision_ran"], int8["cpu"]) == ("measured", "int8:13", "Xeon")
    assert (models[-1]["status"], models[-1]["latency_ms.p50"]) == ("cited", "2730.0")
    assert models[3]["note"] == f"RuntimeError: {EVIL}"
    slices = lines_of(slices_csv(FOUND.results))
    assert len(slices) == sum(len(row.per_slice) for row in FOUND.results.rows) == 18
    assert {(line["case"], line["slice"]) for line in slices} == {(p.case, p.slice) for p in FOUND.pairs}
    assert float(slices[-1]["quality.psnr_db"]) == row.per_slice[-1]["quality"]["psnr_db"]
    assert [path.read_text(encoding="utf-8") for path in write_csv(tmp_path, FOUND.results)] == [
        models_csv(FOUND.results),
        slices_csv(FOUND.results),
    ]


def test_the_csv_holds_no_formula_and_of_little_is_still_csv() -> None:
    evil = Results(machine={}, provenance={}, rows=(Row(name="=1+1", status="failed", note='@x\n"y"'),))
    line = lines_of(models_csv(evil))[0]
    assert (line["name"], line["note"]) == ("'=1+1", '\'@x "y"')
    assert slices_csv(evil) == "name,role,case,slice\n"


def test_figures_left_out_of_the_means_are_shown() -> None:
    assert "not finite" not in [label for table in tables(FOUND.results) for label in table.header]
    row = FOUND.results.rows[2]
    bad = replace(FOUND.results, rows=(replace(row, counts={**row.counts, "not_finite": 3}),))
    table = next(each for each in tables(bad) if each.title == "Quality")
    assert table.lines[0][table.header.index("not finite")] == "3"


def test_a_whole_series_and_several_streams_are_shown() -> None:
    series = {"end_to_end_ms": 21.4, "end_to_end_ms_low": 20.0, "end_to_end_ms_high": 30.5}
    series |= {"cold_start_ms": 812.0, "cold_start_ms_low": 790.0, "cold_start_ms_high": 900.0}
    figures = {"slices_per_s": 123.4, "streams": 2.0, "n": 70.0}
    model = replace(FOUND.results.rows[2], series=series | {"slices": 24, "repeats": 3}, throughput=figures)
    made_of = {table.title: table for table in tables(replace(FOUND.results, rows=(model,)))}
    line = dict(zip(made_of["DICOM to DICOM"].header, made_of["DICOM to DICOM"].lines[0], strict=True))
    assert (line["ms per slice"], line["cold start ms"]) == ("21.4", "812")
    assert (line["lowest to highest"], line["lowest to highest, cold"]) == ("20.0 to 30.5", "790 to 900")
    assert (line["slices"], line["repeats"]) == ("24", "3")
    line = dict(zip(made_of["Latency"].header, made_of["Latency"].lines[0], strict=True))
    assert line["slices/s (streams; n)"] == "123.4 (2; 70)"
    assert float(lines_of(models_csv(replace(FOUND.results, rows=(model,))))[0]["series.cold_start_ms"]) == 812
    assert "DICOM to DICOM" not in [table.title for table in tables(FOUND.results)]


def test_time_on_the_gpu_is_a_column_where_there_is_one() -> None:
    assert "GPU alone ms" not in tables(FOUND.results)[0].header
    model = replace(FOUND.results.rows[2], device="cuda", device_p50_ms=1.5)
    table = tables(replace(FOUND.results, rows=(model,)))[0]
    assert table.lines[0][table.header.index("GPU alone ms")] == "1.50"


def test_tissues_are_shown_as_far_as_they_are_known() -> None:
    table = next(each for each in tables(FOUND.results) if each.title == "By tissue")
    assert {"MAE air", "MAE soft", "MAE bone", "to teacher: MAE bone", "bias soft"} < set(table.header)
    assert not [label for label in table.header if "lesion" in label or "HU" in label]
    row = FOUND.results.rows[2]
    known = replace(row, quality=row.quality | {"mae_lesion_u8": 7.5, "mae_bone_hu": 88.0}, counts={"lesion": 3})
    table = next(each for each in tables(replace(FOUND.results, rows=(known,))) if each.title == "By tissue")
    line = dict(zip(table.header, table.lines[0], strict=True))
    assert (line["MAE lesion"], line["MAE bone HU"], line["slices with a lesion"]) == ("7.50", "88.00", "3")


def test_layers_left_in_float_are_named() -> None:
    model = replace(FOUND.results.rows[2], float_layers=("stem.conv", "tail.conv"), quantizer="inc 3.10")
    for text in (html(replace(FOUND.results, rows=(model,))), markdown(replace(FOUND.results, rows=(model,)))):
        assert "Layers left in float" in text
        assert "stem.conv, tail.conv" in text
        assert "inc 3.10" in text
    assert "Layers left in float" not in html(FOUND.results)


@needs_chromium
def test_in_a_browser_the_slider_moves_and_nothing_is_complained_of(tmp_path: Path) -> None:
    second = replace(FOUND.results.rows[2], name="other")
    results = replace(FOUND.results, rows=(*FOUND.results.rows, second))
    write_html(tmp_path / "report.html", results, strips(FOUND))
    plain = visit(tmp_path / "report.html", tmp_path)
    assert plain.console == ()
    assert plain.dom.count('style="--at: 50%;"') == 3, "the page's own script ran"
    assert len(set(np.asarray(Image.open(io.BytesIO(plain.picture)).convert("L")).ravel().tolist())) > 20
    used = visit(
        tmp_path / "report.html",
        tmp_path,
        """
        const range = document.querySelector(".slide input"), over = document.querySelector(".stack .over");
        range.value = 20; range.dispatchEvent(new Event("input"));
        document.querySelectorAll("details").forEach((each) => { each.open = false; });
        dispatchEvent(new Event("beforeprint"));
        document.title = getComputedStyle(over).clipPath + " " + document.querySelectorAll("details:not([open])").length
          + " " + (document.documentElement.scrollWidth > innerWidth);
        """,
    )
    assert used.console == ()
    assert "<title>inset(0px 0px 0px 20%) 0 false</title>" in used.dom, "slider, printing, nothing wider than the page"
