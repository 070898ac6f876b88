"""What the models of a bench run say of themselves, read once, and whether they belong together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sccg_bench.protocols import Pair
from sccg_compress.console import say
from sccg_compress.models import Model
from sccg_compress.sources import choose_direction, other_intensities, other_teacher
from sccg_runtime.bundle import read_bundle
from sccg_runtime.contract import Contract
from sccg_runtime.direction import Direction, modalities, parse_direction
from sccg_runtime.errors import InputError, SccgError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint
from sccg_teacher_student.data.source import DataSource
from sccg_teacher_student.record import TrainingRecord, other_scale

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Models that were read.

    Attributes
    ----------
    direction
        Of all of them.
    record
        What the first student with a record learned from, else the teacher, or None: its data and size are measured on.
    teacher_path, teacher
        What drift refers to, or None; ``teacher`` is None as well where its file cannot be read.
    checkpoints, contracts
        By path; None where the file cannot be read.
    """

    direction: Direction
    record: TrainingRecord | None
    teacher_path: Path | None
    teacher: Checkpoint | None
    checkpoints: Mapping[Path, Checkpoint | None]
    contracts: Mapping[Path, Contract | None]

    def check_size(self, size: tuple[int, int]) -> None:
        """InputError if a model cannot run at ``size`` (rows, columns)."""
        self._check(size, "--size")

    def check_slices(self, pairs: Iterable[Pair]) -> None:
        """InputError if a model cannot run on an input slice among ``pairs``."""
        given, _ = modalities(self.direction)
        for pair in pairs:
            if (image := pair.image(given)) is not None:
                self._check((image.shape[1], image.shape[2]), pair.label)

    def _check(self, size: tuple[int, int], what: str) -> None:
        networks = [one for one in (*self.checkpoints.values(), self.teacher) if one is not None]
        strides = {str(one.path): one.spec.stride for one in networks}
        strides |= {str(path): contract.stride for path, contract in self.contracts.items() if contract is not None}
        for name, stride in strides.items():
            if any(side % stride for side in size):
                raise InputError(f"{what} {size[0]}x{size[1]}: both sides must be multiples of {stride} for {name}")

    def compare(self, source: DataSource, cases: Sequence[str]) -> list[str]:
        """Say and give what makes figures on ``cases`` mean less.

        An intensity, scale or teacher that is new to a model, or a case that is not.
        """
        scales: dict[str, tuple[tuple[int, int], tuple[float, float] | None]] = {}
        for case in cases:
            pair = source.load(case, source.slices(case)[0])
            size = next((image.shape[1], image.shape[2]) for image in (pair.mr, pair.ct) if image is not None)
            scales[case] = size, source.spacing_mm([case])
        networks = [one for one in (self.teacher, *self.checkpoints.values()) if one is not None]
        learned = {one.path: one.record for one in networks} | dict(self.contracts)
        remarks: list[str] = []
        for path, one in learned.items():
            if one is None:
                continue
            name = f"{path.resolve().parent.name}/{path.name}"  # students of all runs are called alike
            remarks += other_intensities(name, one, source)
            others: dict[str, list[str]] = {}
            for case, scale in scales.items():
                for told in other_scale(name, one, *scale):
                    others.setdefault(told, []).append(case)
            remarks += [
                told if len(those) == len(cases) else f"{told} ({', '.join(those)})" for told, those in others.items()
            ]
            remarks += learned_from(name, one, source, cases)
            if self.teacher is not None and path != self.teacher.path:
                remarks += other_teacher(name, one, self.teacher)
        say(*remarks)
        return remarks

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file by name, with the folder's name or a number where a name occurs twice."""
        found: dict[str, str] = {}
        teacher = [] if self.teacher_path is None else [self.teacher_path]
        for path in dict.fromkeys([*teacher, *self.checkpoints, *self.contracts]):
            digest = sha256(path)
            if found.get(path.name) != digest:
                found[free_name(path.name, path, found)] = digest
        return found


def learned_from(name: str, one: TrainingRecord | Contract, source: DataSource, cases: Sequence[str]) -> list[str]:
    """What speaks for a model having learned from cases: its record, or for a bundle its calibration slices.

    Folders are moved, copied and opened at ``train/``, so names alone count where the folder is not the recorded one.
    """
    if isinstance(one, TrainingRecord):
        its, where = set(one.train_cases), one.data
    else:
        names = (one.calibration or {}).get("names")
        its = {str(name).partition("/")[0] for name in names} if isinstance(names, list) else set()
        where = None
    seen = [case for case in cases if case in its]
    if not seen:
        return []
    told = f"learned from {len(seen)} of these {len(cases)} cases"
    return [f"{name} {told}" if where == str(source.path.resolve()) else f"{name} may have {told}: they have its names"]


def free_name(name: str, path: Path, taken: Collection[str]) -> str:
    """``name``, or where it is taken, with the folder's name of ``path`` or a number behind it."""
    choices = [name, f"{name} ({path.resolve().parent.name})"]
    return next(
        choice for choice in (*choices, *(f"{name} {n}" for n in range(2, len(taken) + 3))) if choice not in taken
    )


def learn(found: Sequence[Model], teacher: Path | None, asked: str | None) -> Known:
    """Read teacher, checkpoints and contracts.

    A file that cannot be read is told and kept: its row will say that it failed, the others are measured.

    Raises
    ------
    InputError
        Directions differ or are not known, the teacher is not there, or there is nothing but broken files.
    """
    asked_direction = None if asked is None else parse_direction(asked)
    if teacher is not None and not teacher.is_file():
        raise InputError(f"no checkpoint at {teacher}")
    failures: list[SccgError] = []

    def read(reader: Callable[[Path], T], path: Path) -> T | None:
        try:
            return reader(path)
        except SccgError as error:
            failures.append(error)
            say(f"not measured: {error}")
            return None

    guide = None if teacher is None else read(load_checkpoint, teacher)
    checkpoints = {model.checkpoint: read(load_checkpoint, model.checkpoint) for model in found if model.checkpoint}
    paths = dict.fromkeys(path for model in found for path in model.bundles)
    contracts = {path: read(lambda path: read_bundle(path).contract, path) for path in paths}
    networks = [one for one in (*checkpoints.values(), guide) if one is not None]
    if failures and not networks and not any(contracts.values()):
        raise failures[0]
    told: dict[str, Direction] = {str(one.path): one.record.direction for one in networks if one.record is not None}
    told |= {str(path): contract.direction for path, contract in contracts.items() if contract is not None}
    unsaid = not told and asked_direction is None
    if told or unsaid:  # a name alone is no word against --direction
        unrecorded = [one for one in networks if one.record is None]
        told |= {f"{one.path} by its name": one.direction for one in unrecorded if one.direction is not None}
    if asked_direction is not None:
        told["--direction"] = asked_direction
    if len(set(told.values())) > 1:
        listed = ", ".join(f"{name} is {direction}" for name, direction in told.items())
        raise InputError(f"bench one direction at a time: {listed}")
    records = [one.record for one in networks if one.record is not None]
    by_name = sorted(networks, key=lambda one: one.direction is None)
    return Known(
        direction=choose_direction(None, by_name[0]) if unsaid else next(iter(told.values())),
        record=records[0] if records else None,
        teacher_path=teacher,
        teacher=guide,
        checkpoints=checkpoints,
        contracts=contracts,
    )
