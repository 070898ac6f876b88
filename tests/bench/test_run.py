"""Real child processes: what works is measured, what fails keeps its row and harms nobody."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bench_fakes as fakes
import numpy as np
import pytest
from bench_fakes import options

from sccg_bench.latency import Latency
from sccg_bench.machine import core_shares
from sccg_bench.protocols import Pair
from sccg_bench.results import Results, Row, not_measured_row
from sccg_bench.run import CONTROLS, _not_finite, other_precision, run_bench, unsteady
from sccg_bench.worker import Worker, WorkerError
from sccg_bench.worker_child import receive, send
from sccg_runtime.errors import InputError


def test_a_whole_run_fills_every_row() -> None:
    models = [
        fakes.Fake("teacher", shift=0.01),
        fakes.Fake("student", shift=0.03, engine="openvino"),
        fakes.Exported("int8", shift=0.04, engine="openvino", precision="int8"),
        fakes.Broken("broken", how="raises", after=3),
    ]
    given = options(teacher_name="teacher", fp32_of={"int8": "student"}, size=(512, 512))
    missing = not_measured_row("cuda", "no CUDA device")
    steps: list[str] = []
    found = run_bench(models, fakes.pairs(), given, provenance={"seed": 0}, extra_rows=[missing], progress=steps.append)
    results = found.results
    names = [row.name for row in results.rows]
    assert names == ["teacher", *CONTROLS, "student", "int8", "broken", "cuda", "paper, RTX 3080 Ti"]
    teacher, control, blurrier, student, int8, broken, cuda, paper = results.rows
    assert [row.status for row in results.rows] == ["measured"] * 5 + ["failed", "not measured", "cited"]

    assert teacher.role == "teacher"
    assert teacher.drift is None
    assert teacher.detail_against == "reference"
    assert teacher.speedup_vs_teacher == 1
    assert student.speedup_vs_teacher == pytest.approx(teacher.latency_ms.p50 / student.latency_ms.p50)
    assert student.speedup_vs_paper == pytest.approx(2730 / student.latency_ms.p50)
    assert student.latency_ms.n >= 4
    assert student.latency_ms.p99 is None or student.latency_ms.n >= 662
    assert (student.size, student.quality_size) == ((512, 512), (64, 64))
    assert student.latency_native_ms is not None
    assert 5 < student.peak_rss_mib < 500
    assert student.size_mib == 1.5
    assert student.drift["to_teacher_mae_u8"] == pytest.approx(0.02 * 127.5, abs=0.2)
    assert student.engine_drift is None
    assert int8.engine_drift["engine_to_fp32_mae_u8"] == pytest.approx(0.01 * 127.5, abs=0.2)
    assert int8.engine_drift_from == "this run"
    assert set(int8.landmarks) == {"worst", "median", "best", "spot"}
    assert [part["case"] for part in int8.per_patient] == ["case0", "case1"]
    assert len(int8.per_slice) == 6
    assert control.quality["hf_ratio"] < 0.5
    assert blurrier.quality["hf_ratio"] < control.quality["hf_ratio"]
    assert student.throughput["streams"] == 1
    assert student.throughput["n"] >= 1
    assert student.throughput["slices_per_s"] > 0
    assert (student.series, student.device_p50_ms, broken.throughput) == (None, None, None)
    assert control.latency_ms is None

    assert broken.note == "ValueError: out of luck"
    assert cuda.note == "no CUDA device"
    assert paper.latency_ms.p50 == 2730
    assert results.provenance == {"seed": 0, "cases": ["case0", "case1"]}
    assert set(found.outputs) == {"teacher", "student", "int8"}
    np.testing.assert_allclose(found.outputs["student"][0], np.clip(found.pairs[0].mr + 0.03, -1, 1), atol=1e-6)
    assert any("broken" in line for line in steps)
    assert Results.from_json(results.to_json()).to_dict() == results.to_dict()


def test_without_slices_only_latency_is_measured_and_export_drift_is_shown_as_such() -> None:
    rows = run_bench([fakes.Exported("int8")], [], options()).results.rows
    assert rows[0].latency_ms is not None
    assert rows[0].quality is None
    assert rows[0].engine_drift == {"engine_to_fp32_psnr_db": 47.5}
    assert rows[0].engine_drift_from == "export"
    assert rows[0].float_layers == ("stem",)
    assert rows[0].quantizer == "nncf 3.4.0"


def test_without_references_one_slice_still_gives_drift() -> None:
    alone = [Pair("case", "001", fakes.head(64), None), Pair("case", "002", None, fakes.head(64))]
    found = run_bench([fakes.Fake("t"), fakes.Fake("s", shift=0.1)], alone, options(teacher_name="t", control=False))
    student = found.results.row("s")
    assert student.quality["psnr_db"] is None
    assert student.drift["to_teacher_psnr_db"] > 10
    assert student.latency_native_ms == student.latency_ms
    assert "1 of 2 slices have no MR" in found.results.warnings[0]


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        (fakes.Broken("m", how="raises"), "failed", "ValueError: out of luck"),
        (fakes.Broken("m", how="dies"), "failed", "exit code 7 (last words: segmentation of a fault)"),
        (fakes.Broken("m", how="dies", after=4), "failed", "exit code 7"),
        (fakes.Broken("m", how="killed"), "failed", "killed by SIGKILL"),
        (fakes.Broken("m", how="nan"), "failed", "not finite"),
        (fakes.Broken("m", how="wrong shape"), "failed", "float32 (1, 63, 64), not float32 (1, 64, 64)"),
        (fakes.Broken("m", how="missing"), "not measured", "no NVIDIA driver on this machine"),
    ],
)
def test_a_model_that_fails_keeps_its_row(model: fakes.Broken, status: str, reason: str) -> None:
    rows = run_bench([model, fakes.Fake("good")], fakes.pairs(1, 1), options()).results.rows
    assert rows[0].status == status
    assert reason in (rows[0].note or "")
    assert "\n" not in (rows[0].note or "")
    assert rows[0].quality is None
    assert rows[1].status == "measured"
    assert rows[1].quality is not None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("engine_drift", "none", "engine_drift is not an object"),
        ("engine_drift", {"engine_to_fp32_psnr_db": True}, "engine_to_fp32_psnr_db is not a number"),
        ("float_layers", 5, "float_layers is not a list"),
        ("quantizer", 5, "quantizer is not text"),
    ],
)
def test_a_bundle_that_says_nonsense_of_itself_fails_alone(key: str, value: object, reason: str) -> None:
    models = [fakes.Forged("forged", key=key, value=value), fakes.Fake("good")]
    results = run_bench(models, fakes.pairs(1, 1), options()).results
    forged, good = results.rows[:2]
    assert (forged.status, good.status) == ("failed", "measured")
    assert reason in (forged.note or "")
    assert Results.from_json(results.to_json()).to_dict() == results.to_dict()


def test_nan_on_one_slice_fails_the_row_and_keeps_its_latency() -> None:
    dark = np.full((1, 64, 64), -1, np.float32)
    slices = [*fakes.pairs(1, 1), Pair("case9", "001", dark, dark)]
    row = run_bench([fakes.Broken("m", how="nan in one")], slices, options()).results.rows[0]
    assert row.status == "failed"
    assert "not finite" in row.note
    assert row.latency_ms is not None
    assert row.speedup_vs_paper is None
    assert row.quality is None


def test_a_size_that_does_not_fit_is_named() -> None:
    row = run_bench([fakes.Broken("m", how="refuses 48")], fakes.pairs(1, 1, 48), options()).results.rows[0]
    assert (row.status, row.note) == ("failed", "at 48x48: 48x48 is not a multiple of the stride 32")


def test_slices_of_two_sizes_are_both_judged() -> None:
    slices = [*fakes.pairs(1, 2, 48), *fakes.pairs(1, 1, 64)]
    found = run_bench([fakes.Fake("m")], slices, options())
    row = found.results.rows[0]
    assert row.quality_size == (48, 48)
    assert row.counts["slices"] == 3
    assert any("1 of 3 slices are not 48x48" in warning for warning in found.results.warnings)


def test_what_is_known_beforehand_is_the_first_warning() -> None:
    found = run_bench([fakes.Fake("network")], [], options(), remarks=["it learned from another teacher"])
    assert found.results.warnings[0] == "it learned from another teacher"


def series_of(folder: Path, files: int) -> Path:
    folder.mkdir()
    for index in range(files):
        (folder / f"{index}.dcm").write_bytes(b"slice")
    (folder / ".DS_Store").write_bytes(b"of the file manager")
    (folder / "+DICOMDIR").write_bytes(b"the first by name, and no slice")
    return folder


def test_a_bundle_is_measured_from_files_to_files_in_fresh_processes(tmp_path: Path) -> None:
    given = options(series=series_of(tmp_path / "mr", 5))
    found = run_bench([fakes.Bundle("b"), fakes.Fake("network")], [], given).results
    bundle, network, _ = found.rows
    assert network.series is None
    assert (bundle.series["slices"], bundle.series["repeats"]) == (5, 2)
    for name in ("end_to_end_ms", "cold_start_ms"):
        assert 0 < bundle.series[f"{name}_low"] <= bundle.series[name] <= bundle.series[f"{name}_high"]
    assert bundle.series["cold_start_ms"] > 5 * bundle.series["end_to_end_ms"], "a process starts first"
    assert "DICOM to DICOM was not measured" not in " ".join(found.warnings)
    assert Results.from_json(found.to_json()).rows[0].series == bundle.series


def test_a_series_that_cannot_be_converted_is_a_warning_and_the_row_stays(tmp_path: Path) -> None:
    given = options(series=series_of(tmp_path / "mr", 1))
    found = run_bench([fakes.Bundle("b", fault="slices are missing")], [], given).results
    assert (found.rows[0].status, found.rows[0].series) == ("measured", None)
    assert "b: DICOM to DICOM was not measured: slices are missing" in found.warnings


@pytest.mark.skipif(len(core_shares(2) or ()) < 2, reason="two processor cores are needed to give each stream its own")
def test_every_stream_has_one_thread_and_cores_of_its_own(tmp_path: Path) -> None:
    row = run_bench([fakes.Cores("m", folder=str(tmp_path))], [], options(threads=2)).results.rows[0]
    assert row.throughput["streams"] == 2
    opened = [path.name.split() for path in tmp_path.iterdir()]
    streams = [cores for _, threads, cores in opened if threads == "1"]
    assert len(opened) == 3
    assert len(streams) == 2
    assert not set(streams[0].split("-")) & set(streams[1].split("-"))


def test_time_on_the_gpu_stands_beside_the_clock_of_the_host() -> None:
    row = run_bench([fakes.OnGpu("m")], [], options()).results.rows[0]
    assert row.device_p50_ms == 2.5


def test_a_lesion_mask_of_another_size_is_refused() -> None:
    pair = Pair("a", "1", fakes.head(32), fakes.head(32), np.zeros((16, 16), bool))
    with pytest.raises(InputError, match=r"a/1: the lesion mask is \(16, 16\), not \(32, 32\)"):
        run_bench([fakes.Broken("m", how="hangs")], [pair], options())


def test_a_hanging_model_is_killed() -> None:
    with Worker(fakes.Broken("m", how="hangs"), 1, timeout_s=1.0) as worker:
        with pytest.raises(WorkerError, match=r"no answer to 'open' within 1 s"):
            worker.open((32, 32))
        pid = worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_child_is_pinned_and_imports_nothing_that_would_count_as_the_models_memory(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Worker(fakes.Environment("m"), 3) as worker:
        assert worker.open((16, 16))["precision_ran"] == {"omp": "3", "imported": []}
    with Worker(fakes.Environment("m"), 3, environment={"OMP_NUM_THREADS": "7"}) as worker:
        assert worker.open((16, 16))["precision_ran"]["omp"] == "7"
    with Worker(fakes.Broken("m", how="dies"), 1) as worker, pytest.raises(WorkerError):
        worker.open((16, 16))
    assert capfd.readouterr() == ("", "")


def test_no_child_outlives_an_interrupt() -> None:
    class Interrupted(KeyboardInterrupt):
        pass

    started = time.monotonic()
    worker = Worker(fakes.Fake("m"), 1)
    worker.open((16, 16))
    with pytest.raises(Interrupted), worker:
        raise Interrupted
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    assert time.monotonic() - started < 60
    with pytest.raises(WorkerError, match="closed"):
        worker.open((16, 16))


def test_a_child_whose_parent_is_gone_ends_by_itself() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sccg_bench.worker_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.communicate(timeout=60)
    assert child.returncode == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_child_in_the_middle_of_a_query_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; import bench_fakes; from sccg_bench.worker import Worker\n"
        "worker = Worker(bench_fakes.Broken('m', how='hangs'), 1); print(worker.pid, flush=True); worker.open((16, 16))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        time.sleep(1)
        parent.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and is_running(child):
        time.sleep(0.05)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_cannot_be_pickled_is_a_failed_row() -> None:
    class Local(fakes.Fake):
        pass

    row = run_bench([Local("m")], [], options()).results.rows[0]
    assert row.status == "failed"
    assert "cannot be sent to a child process" in row.note


def test_names_are_checked_first() -> None:
    with pytest.raises(InputError, match="more than one"):
        run_bench([fakes.Fake("m"), fakes.Fake("m")], [], options())
    with pytest.raises(InputError, match="'t' is named as teacher"):
        run_bench([fakes.Fake("m")], [], options(teacher_name="t"))


@pytest.mark.parametrize(
    "pair",
    [
        Pair("a", "1", fakes.head(32), fakes.head(48)),
        Pair("a", "1", fakes.head(32)[0], None),
        Pair("a", "1", fakes.head(32).astype(np.float64), None),  # type: ignore[arg-type]
    ],
)
def test_slices_that_cannot_be_compared_are_named_before_anything_is_measured(pair: Pair) -> None:
    with pytest.raises(InputError, match=r"a/1: "):
        run_bench([fakes.Broken("m", how="hangs")], [pair], options())


def test_models_whose_turns_lie_far_apart_are_named_in_one_warning() -> None:
    steady = Latency(10, 11, None, 9, 10, 64, 6, 9.9, 10.1)
    quiet = [Row(name="m", latency_ms=steady), Row(name="m")]
    assert unsteady(quiet) is None
    slow = Row(name="slow", latency_ms=replace(steady, block_p50_high=14.9))
    native = Row(name="native", latency_ms=steady, latency_native_ms=replace(steady, block_p50_high=12.9))
    told = unsteady([*quiet, slow, native]) or ""
    assert told.endswith(": slow 50%; native 30%"), "the first screen shows the figure at the networks' own size, too"


def test_a_run_warns_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sccg_bench.run.unsteady", lambda rows: f"apart: {', '.join(row.name for row in rows)}")
    found = run_bench([fakes.Fake("m"), fakes.Fake("n")], fakes.pairs(1, 1, 32), options()).results
    assert "apart: m, n" in found.warnings


def test_each_phase_is_watched_apart_as_quiet_minutes_would_hide_a_disturbed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = SimpleNamespace(warning=lambda: "busy")
    monkeypatch.setattr("sccg_bench.measuring.LoadWatch", lambda _: watch)
    found = run_bench([fakes.Fake("m")], fakes.pairs(1, 1, 32), options()).results
    told = [line.removesuffix(": busy") for line in found.warnings if line.endswith(": busy")]
    assert told == ["latency at 64x64", "latency at 32x32", "throughput of m"]


def test_a_precision_that_did_not_run_is_warned_about() -> None:
    ran = {"int8": 10, "fp32": 7}
    assert other_precision(Row(name="m", precision="int8", precision_ran=ran)) is None
    assert other_precision(Row(name="m", precision="int8")) is None, "nothing is known"
    half = Row(name="m", engine="openvino", precision="fp16", precision_ran={"fp32": 17})
    assert other_precision(half) is None, "weights are stored in FP16"
    assert "fp32" in (other_precision(replace(half, engine="tensorrt-rtx")) or "")
    told = other_precision(Row(name="m", precision="int8", precision_ran={"fp32": 17}))
    assert told == "m: int8 was asked for, but the operations that ran are 17 fp32"
    assert "bf16" in (other_precision(Row(name="m", precision="fp32", precision_ran={"bf16": 17, "fp32": 1})) or "")


def test_figures_that_are_not_finite_become_a_warning() -> None:
    parts = ({"not_finite": ["hf_corr", "ssim"]}, {"not_finite": ["hf_corr"]}, {"not_finite": []})
    row = Row(name="m", counts={"not_finite": 3}, per_slice=parts)
    assert _not_finite(row) == "m: 3 figures are not finite and were left out of the means: hf_corr 2x, ssim 1x"
    assert _not_finite(Row(name="m", counts={"not_finite": 0})) is None
    assert _not_finite(Row(name="m")) is None


def test_rows_have_every_key_of_the_schema() -> None:
    keys = {"name", "engine", "device", "precision", "precision_ran", "status", "note", "threads", "size", "latency_ms"}
    keys |= {"quality_size", "latency_native_ms", "size_mib", "peak_rss_mib", "speedup_vs_paper", "speedup_vs_teacher"}
    keys |= {"quality", "drift", "engine_drift", "per_patient", "per_slice"}
    assert keys <= set(Row(name="m").to_dict())


@pytest.mark.parametrize("cut", [3, 8, 20, -1])
def test_a_message_that_breaks_off_ends_the_child(cut: int) -> None:
    """A parent that is killed while it sends leaves part of a message; its child must not wait for the rest."""
    stream = io.BytesIO()
    send(stream, ("load", b"x" * 100))
    with pytest.raises(EOFError):
        receive(io.BytesIO(stream.getvalue()[:cut]))
