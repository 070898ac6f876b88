"""What a clinic waits for and what it must have room for: sccg-runtime from DICOM files to DICOM files.

    python bench/clinic_figures.py FILE.sccg DICOM_DIR --standalone dist/sccg-runtime --install ./runtime

Every conversion is a fresh process of the command line, run several times; the median counts. ``--standalone`` also
measures that program, ``--install`` makes a new environment with pip and weighs what it brings. The figures:

- first slice: from the start of the process until the first output file has its final size.
- whole series: from start to end of the process.
- steady state: from the first to the last file, per slice, against 1.5 times the engine's own p50 plus decoding.
- memory: peak of the process and of its decoding process together (Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sccg_bench.latency import LatencyPlan, summarise_blocks, time_block, warm_up
from sccg_bench.machine import LoadWatch, describe_machine
from sccg_runtime.bundle import read_bundle
from sccg_runtime.engine import open_session
from sccg_runtime.errors import InputError, SccgError
from sccg_runtime.files import write_text

POLL_S = 0.002
COUNTED = 5
FIRST_SLICE_S, SERIES_S, STEADY_RATIO, PEAK_MIB = 1.0, 2.0, 1.5, 300.0
INSTALL_MB, STANDALONE_MB = 380.0, 300.0
NOT_OURS = ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth")  # of every new environment


@dataclass(frozen=True, slots=True)
class Run:
    """One conversion: seconds since the start of its process, peak memory in MiB (None: unknown), the result's JSON."""

    first_s: float
    last_s: float
    end_s: float
    peak_mib: float | None
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, the most that is wanted, and where the value lay over all runs."""

    name: str
    value: float | None
    most: float
    unit: str
    lowest: float | None = None
    highest: float | None = None

    @property
    def line(self) -> str:
        """One line of text."""
        if self.value is None:
            return f"{self.name:<44} not measured (wanted: at most {self.most:.4g} {self.unit})"
        over = f" ({self.lowest:.4g} to {self.highest:.4g})" if self.lowest is not None else ""
        verdict = "met" if self.value <= self.most else "NOT met"
        return f"{self.name:<44} {self.value:.4g} {self.unit}{over}; at most {self.most:.4g} wanted: {verdict}"


def convert(program: Sequence[str], bundle: Path, source: Path) -> Run:
    """Convert once in a fresh process, and watch its files grow."""
    with tempfile.TemporaryDirectory() as folder:
        out, shown = Path(folder, "out"), Path(folder, "result.json")
        command = [*program, "convert", str(source), str(out), "--bundle", str(bundle), "--json", str(shown)]
        sizes: dict[str, int] = {}
        grown: dict[str, float] = {}
        peak_mib: dict[int, float] = {}
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                now = time.perf_counter() - began
                for path in Path(folder).glob(".out-*.partial/*.dcm"):
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:  # the folder has just got its name
                        continue
                    if size != sizes.get(path.name):
                        sizes[path.name], grown[path.name] = size, now
                _note_memory(process.pid, peak_mib)
                time.sleep(POLL_S)
            end_s = time.perf_counter() - began
            errors = process.stderr.read() if process.stderr else ""
        if process.returncode:
            last = (errors.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
            raise InputError(f"the conversion failed: {last}")
        result = json.loads(shown.read_text())
    if len(grown) != result["slices"]:
        raise InputError(f"{len(grown)} of {result['slices']} files were seen while they were written: run it again")
    peak = sum(peak_mib.values()) or None
    return Run(min(grown.values()), max(grown.values()), end_s, peak, result)


def _note_memory(pid: int, peak_mib: dict[int, float]) -> None:
    """Peak resident memory so far of a process and of its children, by process id."""
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            _note_memory(int(child), peak_mib)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak_mib[pid] = int(line.split()[1]) / 1024
    except OSError:
        return


def engine_p50_ms(bundle: Path, size: tuple[int, int]) -> float:
    """The engine's own p50 in ms for slices of ``size`` (rows, columns), alone."""
    session = open_session(read_bundle(bundle), size=size)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *size)).astype(np.float32)
    plan = LatencyPlan(queries=64, seconds=3.0)
    slow = warm_up(lambda: session(image), plan)
    blocks: list[list[float]] = []
    while not plan.is_done([each for block in blocks for each in block], slow):
        blocks.append(time_block(lambda: session(image), plan))
    return summarise_blocks(blocks).p50


def timed_figures(name: str, program: Sequence[str], bundle: Path, source: Path, rounds: int) -> list[Figure]:
    """Time, speed and memory of ``rounds`` conversions."""
    runs = [convert(program, bundle, source) for _ in range(rounds)]
    count, size = runs[0].result["slices"], runs[0].result["run_size"]
    p50_ms = engine_p50_ms(bundle, (size[0], size[1]))
    decode_ms = statistics.median(run.result["ms"]["decode"] / count for run in runs)
    steady = [(run.last_s - run.first_s) * 1000 / (count - 1) for run in runs] if count > 1 else []
    what = f"steady state per slice, engine {p50_ms:.3g} + {decode_ms:.3g} ms"
    return [
        _over(f"{name}: first slice written", [run.first_s for run in runs], FIRST_SLICE_S, "s"),
        _over(f"{name}: {count} slices, start to end", [run.end_s for run in runs], SERIES_S, "s"),
        _over(f"{name}: {what}", steady, STEADY_RATIO * p50_ms + decode_ms, "ms"),
        _over(f"{name}: peak memory", [run.peak_mib for run in runs if run.peak_mib], PEAK_MIB, "MiB"),
    ]


def _over(name: str, values: Sequence[float], most: float, unit: str) -> Figure:
    if not values:
        return Figure(name, None, most, unit)
    return Figure(name, statistics.median(values), most, unit, min(values), max(values))


def folder_mb(folder: Path) -> float:
    """Size of all files below a folder in MB (millions of bytes)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def install_mb(distribution: Path) -> float:
    """What ``pip install`` of a folder brings into a new environment, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder, "Scripts" if sys.platform == "win32" else "bin")
        done = subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", distribution], check=False)
        if done.returncode:
            raise InputError(f"pip could not install {distribution}")
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = Path(subprocess.check_output([scripts / "python", "-c", code], text=True).strip())
        ours = [item for item in packages.iterdir() if not item.name.startswith(NOT_OURS)]
        return sum(folder_mb(item) if item.is_dir() else item.stat().st_size / 1e6 for item in ours)


def measure(options: argparse.Namespace) -> tuple[list[Figure], str | None]:
    """All figures that were asked for, and a warning if the machine was busy with something else."""
    watch = LoadWatch(lambda: [])
    installed = (sys.executable, "-m", "sccg_runtime")
    figures = timed_figures("installed", installed, options.bundle, options.source, options.rounds)
    if options.standalone is not None:
        name = "sccg-runtime.exe" if sys.platform == "win32" else "sccg-runtime"
        program = (str(options.standalone.resolve() / name),)
        figures += timed_figures("standalone", program, options.bundle, options.source, options.rounds)
    warning = watch.warning()
    if options.standalone is not None:
        figures.append(Figure("standalone folder", folder_mb(options.standalone), STANDALONE_MB, "MB"))
    if options.install is not None:
        figures.append(Figure("pip install with all decoders", install_mb(options.install), INSTALL_MB, "MB"))
    return figures, warning


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Time, memory and size of sccg-runtime, from files to files.")
    parser.add_argument("bundle", metavar="FILE.sccg", type=Path)
    parser.add_argument("source", metavar="DICOM_DIR", type=Path)
    parser.add_argument(
        "--rounds", type=int, default=COUNTED, help="conversions of each program (default: %(default)s)"
    )
    parser.add_argument("--standalone", metavar="DIR", type=Path, help="folder of make standalone")
    parser.add_argument("--install", metavar="DIR", type=Path, help="install this distribution anew, and weigh it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    machine = describe_machine()
    try:
        figures, warning = measure(options)
    except (SccgError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.json is not None:
        values = {"machine": machine.to_dict(), "warning": warning, "figures": [asdict(figure) for figure in figures]}
        write_text(options.json, json.dumps(values, indent=2) + "\n")
    sys.stdout.write(f"{machine.cpu}, {machine.usable_cores} cores\n" + "".join(f"{each.line}\n" for each in figures))
    if warning is not None:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
