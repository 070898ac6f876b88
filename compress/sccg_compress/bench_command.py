"""``sccg-compress bench``: teacher, students and bundles in one run, and the report."""

from __future__ import annotations

import contextlib
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sccg_compress.console import say, write_json
from sccg_compress.models import Model, find_model
from sccg_compress.sources import choose_data
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError

if TYPE_CHECKING:
    from sccg_bench.protocols import Runnable
    from sccg_bench.results import Row
    from sccg_bench.run import BenchResult
    from sccg_compress.known import Known
    from sccg_runtime.contract import Target
    from sccg_teacher_student.data.source import DataSource

TEACHER = "teacher, PyTorch"
TEACHER_OPENVINO = "teacher, OpenVINO"
SERIES_SLICES, SERIES_PX = 24, 256
"""The phantom series that bundles convert where the data set holds no DICOM."""
_GPU_TARGETS: dict[Target, str] = {"tensorrt-rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
_PACKAGES = ("sccg-compress", "sccg-runtime", "torch", "openvino", "onnxruntime", "nncf", "onnx", "numpy")


def run_models(
    models: Sequence[Path],
    *,
    teacher: Path | None = None,
    data: Path | None = None,
    intensity: Path | None = None,
    direction: str | None = None,
    report: Path | None = None,
    split: str | None = None,
    size: tuple[int, int] = (512, 512),
    profile: Literal["quick", "full"] = "quick",
    threads: int | None = None,
    device: str = "auto",
    json_out: str | None = None,
) -> BenchResult:
    """Measure and write the reports."""
    from sccg_bench.measuring import BenchOptions
    from sccg_bench.report.csv import write_csv
    from sccg_bench.report.html import write_html
    from sccg_bench.report.markdown import write_markdown
    from sccg_bench.report.sheets import strips
    from sccg_bench.report.terminal import show
    from sccg_bench.results import write_results
    from sccg_bench.run import run_bench
    from sccg_bench.worker_child import SEED
    from sccg_compress.known import learn
    from sccg_runtime.engine import physical_cores
    from sccg_runtime.files import sha256
    from sccg_teacher_student.data.splits import bench_cases
    from sccg_teacher_student.precision import choose_device

    choose_device(device)  # a wrong name, or CUDA that is not here
    found = [find_model(path) for path in dict.fromkeys(models)] or [find_model(None)]
    folder = report or (found[0].run or Path()) / "report"
    if folder.exists() and not folder.is_dir():  # told before minutes of measuring
        raise InputError(f"{folder} is a file: the report needs a folder, name another --report")
    teacher_path = teacher or next((path for model in found if (path := model.run_teacher()) is not None), None)
    if teacher_path is None:
        say("no --teacher and none recorded: rows show latency and quality, no drift against a teacher")
    known = learn(found, teacher_path, direction)
    known.check_size(size)
    source = choose_data(data, known.record, intensity)
    cases = bench_cases(source, split)
    say(f"{known.direction}; measured on {len(cases)} cases: {', '.join(cases)}")
    pairs = list(source.pairs(cases))
    known.check_slices(pairs)  # told before minutes of measuring
    remarks = known.compare(source, cases)
    runnables, fp32_of = _runnables(found, known, device)
    used = threads or physical_cores()
    provenance: dict[str, Any] = {
        "command": " ".join(["sccg-compress", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "hashes": known.hashes(),
        "teacher_sha256": None if teacher_path is None else sha256(teacher_path),
        "seed": SEED,
        "data": source.path.name,
        "split": next((name for name, those in source.splits.items() if those == cases), "all"),
        "cases": list(cases),
        "simulated_data": source.simulated,
        "ct_window_hu": None if (window := source.settings.ct.window_hu) is None else f"{window[0]:g} to {window[1]:g}",
    }
    folder.mkdir(parents=True, exist_ok=True)  # an error here, or of the next lines, costs no minutes
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder} takes no files ({error.strerror}): name another --report") from None
    with _ended_by_sigterm(), tempfile.TemporaryDirectory() as temporary:
        series = None
        if known.contracts:
            series, provenance["series"] = _series(source, cases, known.direction, Path(temporary))
        options = BenchOptions(
            direction=known.direction,
            teacher_name=TEACHER if teacher_path is not None else None,
            fp32_of=fp32_of,
            ct=source.settings.ct,
            size=size,
            profile=profile,
            threads=used,
            series=series,
        )
        made = run_bench(
            runnables,
            pairs,
            options,
            provenance=provenance,
            extra_rows=[] if device == "cpu" else _engines_not_given(known),
            progress=say,
            remarks=remarks,
        )
    write_results(folder / "result.json", made.results)  # first: all else can be made from it
    write_html(folder / "report.html", made.results, strips(made))
    write_markdown(folder / "report.md", made.results)
    write_csv(folder, made.results)
    write_json(json_out, made.results.to_dict())
    if json_out != "-":
        show(made.results)
    say(f"report: {folder / 'report.html'}")
    if not any(row.status == "measured" and row.role != "control" for row in made.results.rows):
        raise InputError("no model could be measured; the report says why of each")
    return made


def _runnables(found: Sequence[Model], known: Known, device: str) -> tuple[list[Runnable], dict[str, str]]:
    """All rows to measure in the order of the table, and bundle name -> name of its FP32 network.

    CUDA rows are always there unless the CPU alone was asked for; without a GPU they say why they are empty.
    """
    from sccg_compress.known import free_name
    from sccg_export.runnables import BundleRunnable, OpenVinoRunnable
    from sccg_runtime.files import sha256
    from sccg_teacher_student.runnables import TorchRunnable

    rows: list[Runnable] = []
    rows_of: dict[str, str] = {}  # hash of a checkpoint -> its row
    fp32_of: dict[str, str] = {}
    made_of: dict[str, str] = {}  # row of a bundle -> hash of its checkpoint

    def free(name: str, path: Path) -> str:
        return free_name(name, path, {row.name for row in rows})

    def add_network(name: str, path: Path, readable: bool) -> None:
        rows.append(TorchRunnable(name, path))
        rows_of[sha256(path)] = name
        if device != "cpu" and readable:
            on_gpu = TorchRunnable(f"{name} on CUDA", path, "cuda")
            half = TorchRunnable(f"{name} on CUDA, FP16", path, "cuda", "fp16")
            rows.extend((on_gpu, half))
            fp32_of.update(dict.fromkeys((on_gpu.name, half.name), name))

    if known.teacher_path is not None:
        add_network(TEACHER, known.teacher_path, known.teacher is not None)
        if known.teacher is not None:
            rows.insert(1, OpenVinoRunnable(TEACHER_OPENVINO, known.teacher_path))
            fp32_of[TEACHER_OPENVINO] = TEACHER
    done: set[Path] = set()
    for model in found:
        label = f" ({model.run.name})" if len(found) > 1 and model.run is not None else ""
        if model.checkpoint is not None and sha256(model.checkpoint) not in rows_of:
            one = known.checkpoints[model.checkpoint]
            known_as = model.checkpoint.stem if one is None else one.spec.name
            name = free(f"{known_as}, PyTorch{label}", model.checkpoint)
            add_network(name, model.checkpoint, one is not None)
        for path in model.bundles:
            if path.resolve() in done:
                continue
            done.add(path.resolve())
            name = free(f"{path.stem}{label}", path)
            rows.append(BundleRunnable(name, path))
            contract = known.contracts[path]
            if contract is not None:
                made_of[name] = contract.generator_sha256
    fp32_of |= {name: rows_of[made] for name, made in made_of.items() if made in rows_of}
    return rows, fp32_of


def _engines_not_given(known: Known) -> list[Row]:
    """A row for each engine of GPUs that no bundle holds: why it is empty."""
    from sccg_bench.results import not_measured_row
    from sccg_export.requirements import examine
    from sccg_export.runnables import ENGINE_NAMES

    given = {contract.target for contract in known.contracts.values() if contract is not None}
    rows = []
    for target, name in _GPU_TARGETS.items():
        if target not in given:
            status = examine(target)
            lacking = f"; missing here: {', '.join(status.missing)}" if status.missing else ""
            reason = f"no {name} bundle was given (sccg-compress export --target {target}){lacking}"
            rows.append(not_measured_row(f"student, {name}", reason, engine=ENGINE_NAMES[target]))
    return rows


def _series(source: DataSource, cases: Sequence[str], direction: Direction, folder: Path) -> tuple[Path, str]:
    """A DICOM series that the direction takes, and its name: a case's own, or a phantom's, made in ``folder``."""
    from sccg_runtime.direction import modalities
    from sccg_teacher_student.data.phantom import case_name
    from sccg_teacher_student.data.phantom_dicom import write_phantom
    from sccg_teacher_student.data.reader import child, visible

    name = modalities(direction)[0].lower()
    for case in cases if source.kind == "dicom" else ():
        own = child(source.folders[case], name)
        if own is not None and any(entry.is_file() for entry in visible(own)):
            return own, f"{case}/{name}"
    told = f"phantom, {SERIES_SLICES} slices of {SERIES_PX}x{SERIES_PX}"
    say(f"DICOM to DICOM is measured on a series of the {told}: no case has a folder {name} of DICOM files")
    phantom = write_phantom(folder / "phantom", patients=1, slices=SERIES_SLICES, size=SERIES_PX, split=False)
    return phantom / case_name(0) / name, told


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """While open, SIGTERM ends the command in order: models' processes are closed, temporary files removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
