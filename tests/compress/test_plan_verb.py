"""``sccg-compress plan``: what is timed, what is kept, and which student is chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command_line import Cli, Lab

from sccg_bench.worker_child import noise
from sccg_compress import planning
from sccg_compress.candidates import CANDIDATES, CONTROLS
from sccg_compress.planning import Setting, Timed, Timing, choose, engine_files
from sccg_export.runnables import EngineRunnable
from sccg_runtime.contract import Target
from sccg_runtime.errors import InputError
from sccg_teacher_student.networks.cost import gmac
from sccg_teacher_student.networks.spec import PRESETS, student_spec

FEW = ("s2d-8x1", "s2d-8x2-u16-branch-notail")
CONTROL = "resnet-4x1-bn"


def timed(name: str, gmac: float, p50_ms: float | None, *, control: bool = False) -> Timed:
    return Timed(
        name=name,
        control=control,
        parameters=1000,
        gmac=gmac,
        p50_ms=p50_ms,
        p90_ms=None if p50_ms is None else p50_ms * 1.2,
        precision_ran=None if p50_ms is None else {"int8": 3},
        note="its process was killed" if p50_ms is None else None,
    )


BALANCED = PRESETS["balanced"]
TABLE = (
    timed("s2d-16x4", 0.5, 1.0),
    timed(BALANCED, 3.3, 4.4),
    timed("s2d-32x4-u96", 3.1, 4.0),
    timed("s2d-64x4", 5.0, None),
    timed("s2d-64x6", 8.2, 9.0),
    timed("s2d-48x4-k7", 9.3, 4.1, control=True),
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Setting]:
    """Figures of ``TABLE`` in place of a measurement, in an empty folder; the settings that were asked for."""
    asked: list[Setting] = []

    def measure(setting: Setting, say: Callable[[str], None]) -> Timing:
        asked.append(setting)
        return Timing(setting=setting, candidates=TABLE, warnings=("other processes kept 1.0 cores busy",))

    monkeypatch.setattr(planning, "measure", measure)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize(
    ("budget_ms", "chosen"),
    [(100, "s2d-64x6"), (9.9, "s2d-64x6"), (9.8, BALANCED), (4.83, "s2d-32x4-u96"), (1.2, "s2d-16x4"), (1.05, None)],
)
def test_the_largest_that_fits_with_a_tenth_to_spare_and_never_a_control(budget_ms: float, chosen: str | None) -> None:
    found = choose(TABLE, budget_ms)
    assert (found and found.name) == chosen


def test_of_equal_work_the_fastest_is_chosen() -> None:
    found = choose((timed("slow", 1.0, 3.0), timed("fast", 1.0, 2.0)), 5.0)
    assert found is not None
    assert found.name == "fast"


def test_the_table_and_the_command_that_comes_next(run: Cli, told: list[Setting]) -> None:
    said = run("plan", "--budget-ms", 5)
    assert said.code == 0, said
    lines = {line.split()[0]: line.split() for line in said.out.splitlines() if line.strip()}
    assert lines[BALANCED][1:] == ["3.30", "4.40", "5.28", "yes"]
    assert lines["s2d-64x6"][-3:] == ["9.00", "10.80", "no"]
    assert lines["s2d-48x4-k7"][-1] == "control"
    assert lines["s2d-64x4"][-3:] == ["–", "–", "–"]
    assert "s2d-64x4: not timed: its process was killed" in said.err
    assert "Fits: p50 and 10% of it are within 5 ms" in said.out
    assert f"balanced {BALANCED}" in said.out
    assert said.out.splitlines()[-1].endswith(f"sccg-compress distill --student {BALANCED} --teacher FILE")
    assert "warning: other processes kept 1.0 cores busy" in said.err
    assert [(one.target, one.size) for one in told] == [("openvino", (512, 512))]


def test_json_holds_the_choice_and_every_figure(run: Cli, told: list[Setting]) -> None:
    said = run("plan", "--budget-ms", 5, "--target", "ort", "--size", 256, "--json", "-")
    values = json.loads(said.out)
    assert (values["schema"], values["chosen"], values["budget_ms"]) == ("sccg-plan/1", BALANCED, 5)
    assert values["margin"] == pytest.approx(0.1)
    assert [(one["name"], one["fits"]) for one in values["candidates"]] == [(one.name, one.fits(5)) for one in TABLE]
    assert values["setting"]["target"] == "ort"
    assert values["setting"]["size"] == [256, 256]
    assert {"onnxruntime", "sccg-compress"} == set(values["setting"]["versions"])


def test_figures_are_kept_until_something_changes_or_fresh_ones_are_wanted(run: Cli, told: list[Setting]) -> None:
    first = run("plan", "--budget-ms", 5, "--json", "-")
    again = run("plan", "--budget-ms", 2, "--json", "-")
    assert len(told) == 1
    assert "measured before" in again.err
    assert json.loads(again.out)["candidates"][0] == json.loads(first.out)["candidates"][0]
    assert json.loads(again.out)["chosen"] == "s2d-16x4"
    assert "warning: other processes" in again.err, "what disturbed the measurement stays known"
    run("plan", "--budget-ms", 5, "--fresh")
    run("plan", "--budget-ms", 5, "--size", 256)
    run("plan", "--budget-ms", 5, "--target", "ort")
    assert len(told) == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"candidates": [{"name": "s2d-8x1"}]}',
        '{"candidates": [], "warnings": []}',
        "[" * 100_000,
        *(json.dumps({"candidates": [asdict(replace(TABLE[0], p50_ms=bad))], "warnings": []}) for bad in (None, -3.0)),
        json.dumps({"candidates": [asdict(replace(TABLE[0], p50_ms=float("nan")))], "warnings": []}),
        json.dumps({"candidates": [asdict(TABLE[-1])], "warnings": []}),
    ],
)
def test_kept_figures_that_cannot_be_are_measured_again(run: Cli, told: list[Setting], text: str) -> None:
    run("plan", "--budget-ms", 5)
    (kept,) = Path("runs/cache/plan").iterdir()
    kept.write_text(text)
    assert "is damaged: measured again" in run("plan", "--budget-ms", 5).err
    assert len(told) == 2


def test_figures_that_cannot_be_kept_are_shown_all_the_same(run: Cli, told: list[Setting]) -> None:
    Path("runs").write_text("a file where the folder should be", encoding="utf-8")
    said = run("plan", "--budget-ms", 5)
    assert said.code == 0, said
    assert "s2d-64x6" in said.out
    assert "figures are not kept" in said.err


def test_another_processor_or_engine_is_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Setting.here("openvino", (512, 512))
    others = [
        replace(here, cpu="another"),
        replace(here, versions={**here.versions, "openvino": "1"}),
        replace(here, threads=here.threads + 1),
        replace(here, candidates=here.candidates[1:]),
    ]
    assert len({here.key, *(one.key for one in others)}) == 5
    assert Setting.here("openvino", (512, 512)).key == here.key
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert Setting.here("openvino", (512, 512)).key != here.key, "kernels of another time"


def test_no_student_has_a_map_of_one_pixel() -> None:
    found = Setting.here("openvino", (16, 16))
    assert all(gmac(student_spec(name), found.size) > 0 for name in (*found.candidates, *found.controls))
    assert "branch" not in " ".join(found.candidates)


def test_processes_at_once_do_not_measure(
    told: list[Setting], run: Cli, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run("distill", "--teacher", lab.teacher, "--budget-ms", 5).refused("--budget-ms", "say --student NAME")
    assert told == []


def test_only_students_that_take_the_size_are_timed() -> None:
    whole, odd = Setting.here("openvino", (512, 512)), Setting.here("openvino", (512, 500))
    assert set(whole.candidates) == set(CANDIDATES)
    assert set(whole.controls) == set(CONTROLS)
    assert odd.controls
    assert all(student_spec(name).stride == 4 for name in (*odd.candidates, *odd.controls))


def test_candidates_are_names_of_every_form_and_the_presets_are_among_them() -> None:
    specs = {name: student_spec(name) for name in (*CANDIDATES, *CONTROLS)}
    assert all(spec.name == name for name, spec in specs.items())
    assert len(specs) == len((*CANDIDATES, *CONTROLS)), "none stands twice"
    assert set(PRESETS.values()) <= set(CANDIDATES)
    forms = {re.sub(r"^s2d-\d+x\d+|-g16", "", name) for name in CANDIDATES}
    assert forms == {"-h16-nostd-in1-tanh"}, "multiply-adds rank one form alone"
    assert {spec.factor for spec in specs.values()} >= {4, 8}
    parts = ("branch", "inner_width", "refine", "norm_once", "tanh", "standardise", "dilations", "film_after")
    for part in (*parts, "half_width", "group_width"):
        assert {bool(getattr(spec, part)) for spec in specs.values()} == {False, True}
    assert any(specs[name].depthwise for name in CONTROLS)
    assert any(specs[name].kernel > 3 and not specs[name].depthwise for name in CONTROLS)
    assert {specs[name].family for name in CONTROLS} == {"resnet", "s2d"}


def test_what_is_wrong_is_one_line(run: Cli, told: list[Setting]) -> None:
    run("plan").refused("--budget-ms")
    run("plan", "--budget-ms", 0).refused("--budget-ms 0", "above zero")
    run("plan", "--budget-ms", "nan").refused("above zero")
    run("plan", "--budget-ms", "soon").refused("--budget-ms")
    run("plan", "--budget-ms", 5, "--target", "coreml").refused("'coreml' is none of openvino, ort")
    run("plan", "--budget-ms", 5, "--size", 30).refused("--size 30x30", "multiples of 4")
    assert told == []


def test_a_gpu_target_is_refused(run: Cli, told: list[Setting]) -> None:
    run("plan", "--budget-ms", 5, "--target", "tensorrt-rtx").refused("do not run on a CPU", "openvino or ort")
    assert told == []


def test_a_budget_that_nothing_fits_is_refused_and_names_the_fastest(run: Cli, told: list[Setting]) -> None:
    said = run("plan", "--budget-ms", 0.5)
    said.refused("no student fits 0.5 ms", "s2d-16x4, takes 1.00 ms", code=3)
    assert "s2d-64x6" in said.out, "the table is shown all the same"


def test_distill_takes_the_student_that_fits(
    run: Cli, told: list[Setting], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        "sccg_compress.distill_command.new_run", lambda config, out, json_out: made.append(config.student)
    )
    said = run("distill", "--teacher", lab.teacher, "--budget-ms", 4.5, "--steps", 1)
    assert said.code == 0, said
    assert made == ["s2d-32x4-u96"]
    assert "student: s2d-32x4-u96, 4.00 ms, is the largest that fits 4.5 ms" in said.err
    assert "warning: other processes kept 1.0 cores busy" in said.err
    run("distill", "--teacher", lab.teacher, "--budget-ms", 5, "--student", "fast").refused("--budget-ms", "--student")
    run("distill", "--teacher", lab.teacher, "--budget-ms", 0.1, "--steps", 1).refused("no student fits", code=3)
    run("distill", "--resume", lab.run, "--budget-ms", 5).refused("--budget-ms", "as the run began")
    assert made == ["s2d-32x4-u96"]


@pytest.mark.parametrize("target", ["openvino", "ort"])
def test_an_engine_of_random_weights_runs_in_eight_bits(target: Target) -> None:
    spec = student_spec("s2d-8x1-branch")
    files = engine_files(spec, target, (64, 64))
    runnable = EngineRunnable(spec.name, files)
    output = runnable.open((64, 64), 1)(noise((64, 64)))
    assert output.shape == (1, 64, 64)
    assert output.std() > 0
    assert runnable.describe()["precision_ran"]["int8"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_students_are_really_built_and_timed(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "CANDIDATES", FEW)
    monkeypatch.setattr(planning, "CONTROLS", (CONTROL,))
    said = run("plan", "--budget-ms", 100_000, "--size", 64, "--json", "-")
    assert said.code == 0, said
    values = json.loads(said.out)
    assert [one["name"] for one in values["candidates"]] == [*FEW, CONTROL]
    for one in values["candidates"]:
        assert 0 < one["p50_ms"] <= one["p90_ms"]
        assert one["precision_ran"]["int8"] > 0
        assert one["parameters"] > 0
        assert one["note"] is None
    assert values["chosen"] == max(values["candidates"][:-1], key=lambda one: one["gmac"])["name"]


@pytest.mark.usefixtures("brief")
def test_where_no_student_can_be_timed_nothing_is_kept(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "CANDIDATES", ("s2d-8x1",))
    monkeypatch.setattr(planning, "CONTROLS", ())
    broken = replace(
        engine_files(student_spec("s2d-8x1"), "openvino", (64, 64)), members={"model.xml": b"", "model.bin": b""}
    )
    monkeypatch.setattr(planning, "engine_files", lambda *_: broken)
    run("plan", "--budget-ms", 5, "--size", 64).refused("no student could be timed", "s2d-8x1")
    assert not Path("runs").exists()
    with pytest.raises(InputError):
        planning.measure(Setting.here("openvino", (64, 64)), lambda line: None)
