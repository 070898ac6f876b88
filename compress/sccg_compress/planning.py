"""Latency of students that never learned: it does not depend on weights, so it is known before any training.

Each candidate is built with random weights, quantised by the target's own quantiser and timed as bench times bundles.
Kept results hold for one CPU model, thread count, set of versions, target, slice size and list of candidates.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sccg_bench.machine import describe_machine, onednn_limit
from sccg_bench.measuring import BenchOptions, Measuring
from sccg_bench.results import Row
from sccg_bench.run import unsteady
from sccg_bench.worker_child import noise
from sccg_compress.candidates import CANDIDATES, CONTROLS
from sccg_export.calibration import Calibration
from sccg_export.graph import export_graph
from sccg_export.requirements import REQUIREMENTS
from sccg_export.runnables import EngineRunnable
from sccg_export.targets import int8_cpu_target, load_target
from sccg_runtime.contract import Target
from sccg_runtime.engine import EngineFiles, cpu_capabilities, physical_cores
from sccg_runtime.errors import InputError
from sccg_runtime.files import sha256, write_text
from sccg_teacher_student.networks.build import build_generator
from sccg_teacher_student.networks.cost import gmac, parameters
from sccg_teacher_student.networks.spec import GeneratorSpec, student_spec

SCHEMA = "sccg-plan/1"
MARGIN = 0.1
"""Share of its own p50 that a student must leave of the budget: layers that export puts back to float cost time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A candidate, counted and timed.

    Attributes
    ----------
    name
        That ``distill --student`` takes.
    control
        Shown, never chosen.
    parameters, gmac
        Numbers that it learns; 10^9 multiply-adds for one slice.
    p50_ms, p90_ms
        Single stream; None where it could not be timed, and ``note`` says why.
    precision_ran
        Convolutions by precision.
    """

    name: str
    control: bool
    parameters: int
    gmac: float
    p50_ms: float | None
    p90_ms: float | None
    precision_ran: dict[str, int] | None
    note: str | None

    def fits(self, budget_ms: float) -> bool:
        """Whether its median and the margin stay within the budget."""
        return self.p50_ms is not None and self.p50_ms * (1 + MARGIN) <= budget_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What figures hold for.

    Attributes
    ----------
    cpu, instruction_sets, threads
        Of the machine; what it does not tell is None.
    computes
        What OpenVINO uses of them, such as ``BF16``.
    limited_to
        What the environment keeps its kernels to, or None.
    versions
        Of this package, the engine and its quantiser.
    target, size
        Engine, and (rows, columns) of the slices.
    candidates, controls
        Names of students.
    """

    cpu: str | None
    instruction_sets: tuple[str, ...] | None
    threads: int
    computes: tuple[str, ...]
    limited_to: str | None
    versions: Mapping[str, str]
    target: Target
    size: tuple[int, int]
    candidates: tuple[str, ...]
    controls: tuple[str, ...]

    @classmethod
    def here(cls, target: str, size: tuple[int, int]) -> Setting:
        """This machine, and the candidates whose stride divides ``size``.

        Raises
        ------
        InputError
            The target's INT8 engines cannot be made here or do not run on a CPU, or no candidate takes the size.
        """
        known = int8_cpu_target(target)
        machine = describe_machine()
        candidates, controls = (
            tuple(name for name in names if student_spec(name).takes(size)) for names in (CANDIDATES, CONTROLS)
        )
        if not candidates:
            stride = min(student_spec(name).stride for name in CANDIDATES)
            raise InputError(f"--size {size[0]}x{size[1]}: no student takes such slices; say multiples of {stride}")
        return cls(
            cpu=machine.cpu,
            instruction_sets=machine.instruction_sets,
            threads=physical_cores(),
            computes=tuple(sorted(cpu_capabilities())),
            limited_to=onednn_limit(),
            versions={name: version(name) for name in ("sccg-compress", *REQUIREMENTS[known].packages)},
            target=known,
            size=size,
            candidates=candidates,
            controls=controls,
        )

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode())[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All candidates of a setting, controls last, and what disturbed the measurement."""

    setting: Setting
    candidates: tuple[Timed, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema": SCHEMA, **asdict(self)}


def timing(setting: Setting, folder: Path, say: Callable[[str], None], *, fresh: bool = False) -> Timing:
    """The figures of this setting that are kept in ``folder``, else measured now and kept.

    Raises
    ------
    InputError
        No candidate could be timed.
    """
    path = folder / f"{setting.key}.json"
    if not fresh and path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            kept = Timing(
                setting=setting,
                candidates=tuple(Timed(**one) for one in values["candidates"]),
                warnings=tuple(values["warnings"]),
            )
            if not _is_whole(kept):
                raise ValueError(path)
        except (ValueError, KeyError, TypeError, RecursionError):
            say(f"{path} is damaged: measured again")
        else:
            say(f"measured before on this CPU with these versions ({path}); --fresh measures again")
            return kept
    measured = measure(setting, say)
    try:
        write_text(path, json.dumps(measured.to_dict(), indent=2, allow_nan=False) + "\n")
    except OSError as error:  # minutes of measuring are not lost for want of a place
        say(f"figures are not kept: {path}: {error.strerror}")
    return measured


def _is_whole(kept: Timing) -> bool:
    """Whether every time can be one, and a student is among those timed."""
    timed = [one for one in kept.candidates if one.p50_ms is not None]
    possible = all(type(one.p50_ms) is float and 0 < one.p50_ms < math.inf for one in timed)
    return possible and any(not one.control for one in timed)


def measure(setting: Setting, say: Callable[[str], None]) -> Timing:
    """Build all candidates, then let them take turns.

    Raises
    ------
    InputError
        No candidate could be timed.
    """
    specs = {name: student_spec(name) for name in (*setting.candidates, *setting.controls)}
    run = Measuring(BenchOptions(direction="mr2ct", size=setting.size, threads=setting.threads), say)
    with contextlib.ExitStack() as stack:
        for number, (name, spec) in enumerate(specs.items(), start=1):
            say(f"{name}: building, {number} of {len(specs)}")
            run.start(stack, EngineRunnable(name, engine_files(spec, setting.target, setting.size)))
        run.measure(setting.size, native=False)
        told = [*run.warnings, unsteady(run.rows.values())]
    timed = tuple(_timed(spec, run.rows[name], setting) for name, spec in specs.items())
    if all(one.control or one.p50_ms is None for one in timed):
        raise InputError(f"no student could be timed: {timed[0].note}")
    return Timing(setting=setting, candidates=timed, warnings=tuple(text for text in told if text is not None))


def choose(candidates: Sequence[Timed], budget_ms: float) -> Timed | None:
    """Of the candidates that fit, that of most multiply-adds, and of these the fastest; None where none fits."""
    fitting = [one for one in candidates if not one.control and one.fits(budget_ms)]
    return max(fitting, key=lambda one: (one.gmac, -(one.p50_ms or 0.0)), default=None)


def engine_files(spec: GeneratorSpec, target: Target, size: tuple[int, int]) -> EngineFiles:
    """An INT8 engine of a network with random weights, its ranges taken from noise of ``size`` (rows, columns)."""
    torch.manual_seed(0)
    traced = 8 * spec.stride
    graph = export_graph(build_generator(spec), (traced, traced))
    built = load_target(target, "int8").build(graph, "int8", size, Calibration([noise(size)], ("noise",), 0))
    return EngineFiles(
        name=spec.name,
        target=target,
        precision="int8",
        precision_ran=built.precision_ran or {},
        members=dict(built.members),
    )


def _timed(spec: GeneratorSpec, row: Row, setting: Setting) -> Timed:
    with torch.device("meta"):
        learned = parameters(build_generator(spec))
    return Timed(
        name=spec.name,
        control=spec.name in setting.controls,
        parameters=learned,
        gmac=gmac(spec, setting.size),
        p50_ms=None if row.latency_ms is None else row.latency_ms.p50,
        p90_ms=None if row.latency_ms is None else row.latency_ms.p90,
        precision_ran=row.precision_ran,
        note=row.note,
    )
