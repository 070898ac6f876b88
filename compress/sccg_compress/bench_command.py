"""``sccg-compress bench``: teacher, students and bundles in one run, and the report."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sccg_compress.console import say
from sccg_compress.models import Model, find_model
from sccg_compress.sources import choose_data, choose_direction
from sccg_runtime.direction import Direction
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256

if TYPE_CHECKING:
    from sccg_bench.protocols import Runnable
    from sccg_bench.run import BenchResult

TEACHER = "teacher, PyTorch"
TEACHER_OPENVINO = "teacher, OpenVINO"
_PACKAGES = ("sccg-compress", "sccg-runtime", "torch", "openvino", "onnxruntime", "nncf", "onnx", "numpy")


def run_models(
    models: Sequence[Path],
    *,
    teacher: Path | None,
    data: Path | None,
    intensity: Path | None,
    direction: str | None,
    split: str | None,
    size: tuple[int, int],
    profile: Literal["quick", "full"],
    threads: int | None,
    device: str,
    report: Path | None,
    json_out: str | None,
) -> BenchResult:
    """Measure and write the reports."""
    from sccg_bench.report.html import write_html
    from sccg_bench.report.markdown import write_markdown
    from sccg_bench.report.sheets import strips
    from sccg_bench.report.terminal import show
    from sccg_bench.results import write_results
    from sccg_bench.run import BenchOptions, run_bench
    from sccg_runtime.engine import physical_cores
    from sccg_teacher_student.data.splits import bench_cases

    found = [find_model(path) for path in models] or [find_model(None)]
    teacher_path = teacher or next((path for model in found if (path := model.run_teacher()) is not None), None)
    if teacher_path is None:
        say("no --teacher and none recorded: rows show latency and quality, no drift against a teacher")
    facts = _facts(found, teacher_path, direction)
    source = choose_data(data, facts.data, intensity)
    cases = bench_cases(source, split)
    say(f"{facts.direction}; measured on {len(cases)} cases: {', '.join(cases)}")
    runnables, fp32_of = _runnables(found, teacher_path, device)
    used = threads or physical_cores()
    provenance: dict[str, Any] = {
        "command": " ".join(["sccg-compress", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "hashes": _hashes(found, teacher_path),
        "seed": None,
        "data": source.path.name,
        "split": split or ("test" if "test" in source.splits else "val" if "val" in source.splits else "all"),
        "cases": list(cases),
        "simulated_data": source.simulated,
    }
    options = BenchOptions(
        direction=facts.direction,
        teacher_name=TEACHER if teacher_path is not None else None,
        fp32_of=fp32_of,
        ct=source.settings.ct,
        size=size,
        profile=profile,
        threads=used,
    )
    made = run_bench(runnables, source.pairs(cases), options, provenance=provenance, progress=say)
    if json_out == "-":
        from sccg_compress.console import write_json

        write_json("-", made.results.to_dict())
    else:
        show(made.results)
    if json_out not in (None, "-"):
        write_results(Path(str(json_out)), made.results)
    folder = report or (found[0].run or Path()) / "report"
    write_html(folder / "report.html", made.results, strips(made))
    write_markdown(folder / "report.md", made.results)
    write_results(folder / "result.json", made.results)
    say(f"report: {folder / 'report.html'}")
    return made


class _Facts:
    """Direction and recorded data of the first model that tells them."""

    def __init__(self, direction: Direction, data: str | None) -> None:
        self.direction = direction
        self.data = data


def _facts(found: Sequence[Model], teacher: Path | None, asked: str | None) -> _Facts:
    from sccg_runtime.bundle import read_bundle
    from sccg_teacher_student.checkpoint import load_checkpoint

    direction: Direction | None = None
    data: str | None = None
    for model in found:
        if model.checkpoint is not None:
            checkpoint = load_checkpoint(model.checkpoint)
            if checkpoint.record is not None:
                direction, data = checkpoint.record.direction, data or checkpoint.record.data
        for path in model.bundles:
            own = read_bundle(path).contract.direction
            if direction not in (None, own):
                raise InputError(f"{path} is {own}, other models are {direction}: bench one direction at a time")
            direction = own
    if direction is None or asked is not None:
        named = next((model.checkpoint for model in found if model.checkpoint is not None), teacher)
        if named is None:
            raise InputError("the direction is not known; say --direction")
        chosen = choose_direction(asked, load_checkpoint(named))
        if direction not in (None, chosen):
            raise InputError(f"--direction {asked}: the models are {direction}")
        direction = chosen
    return _Facts(direction, data)


def _runnables(found: Sequence[Model], teacher: Path | None, device: str) -> tuple[list[Runnable], dict[str, str]]:
    """All rows to measure in the order of the table, and bundle name -> name of its FP32 network.

    CUDA rows are always there unless the CPU alone was asked for; without a GPU they say why they are empty.
    """
    from sccg_export.runnables import BundleRunnable, OpenVinoRunnable
    from sccg_runtime.bundle import read_bundle
    from sccg_teacher_student.checkpoint import load_checkpoint
    from sccg_teacher_student.runnables import TorchRunnable

    rows: list[Runnable] = []
    hashes: dict[str, str] = {}
    fp32_of: dict[str, str] = {}
    if teacher is not None:
        rows += [TorchRunnable(TEACHER, teacher), OpenVinoRunnable(TEACHER_OPENVINO, teacher)]
        fp32_of[TEACHER_OPENVINO] = TEACHER
        hashes[sha256(teacher)] = TEACHER
        if device != "cpu":
            rows.append(TorchRunnable(f"{TEACHER} on CUDA", teacher, "cuda"))
    for model in found:
        label = f" ({model.run.name})" if len(found) > 1 and model.run is not None else ""
        if model.checkpoint is not None and (digest := sha256(model.checkpoint)) not in hashes:
            name = f"{load_checkpoint(model.checkpoint).spec.name}, PyTorch{label}"
            rows.append(TorchRunnable(name, model.checkpoint))
            hashes[digest] = name
            if device != "cpu":
                rows.append(TorchRunnable(f"{name} on CUDA", model.checkpoint, "cuda"))
        for path in model.bundles:
            contract = read_bundle(path).contract
            name = f"{path.stem}{label}"
            rows.append(BundleRunnable(name, path))
            if contract.generator_sha256 in hashes:
                fp32_of[name] = hashes[contract.generator_sha256]
    if not rows:
        raise InputError("nothing to measure")
    return rows, fp32_of


def _hashes(found: Sequence[Model], teacher: Path | None) -> dict[str, str]:
    paths = [path for model in found for path in (model.checkpoint, *model.bundles) if path is not None]
    return {path.name: sha256(path) for path in ([teacher] if teacher else []) + paths}
