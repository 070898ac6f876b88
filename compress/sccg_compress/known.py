"""What the models of a bench run say of themselves, read once, and whether they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sccg_compress.console import say
from sccg_compress.models import Model
from sccg_compress.sources import choose_direction, say_other_intensities
from sccg_runtime.bundle import read_bundle
from sccg_runtime.contract import Contract
from sccg_runtime.direction import Direction, parse_direction
from sccg_runtime.errors import BundleError, InputError
from sccg_runtime.files import sha256
from sccg_teacher_student.checkpoint import Checkpoint, load_checkpoint
from sccg_teacher_student.data.source import DataSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Models that were read.

    Attributes
    ----------
    direction
        Of all of them.
    data
        Folder that the first of them learned from, where it tells.
    teacher
        What drift refers to, or None.
    checkpoints, contracts
        By path; the contract of a bundle that cannot be read is None.
    """

    direction: Direction
    data: str | None
    teacher: Checkpoint | None
    checkpoints: Mapping[Path, Checkpoint]
    contracts: Mapping[Path, Contract | None]

    def check_size(self, size: tuple[int, int]) -> None:
        """InputError if a model cannot run at ``size`` (rows, columns)."""
        networks = [*self.checkpoints.values(), *([self.teacher] if self.teacher else [])]
        strides = {one.path.name: one.spec.stride for one in networks}
        strides |= {path.name: contract.stride for path, contract in self.contracts.items() if contract is not None}
        for name, stride in strides.items():
            if any(side % stride for side in size):
                raise InputError(f"--size {size[0]}x{size[1]}: both sides must be multiples of {stride} for {name}")

    def compare(self, source: DataSource) -> None:
        """Say what makes figures mean less: intensities or a teacher that are not those a model learned from."""
        for one in self.checkpoints.values():
            if one.record is not None:
                say_other_intensities(one.path.name, one.record, source)
        for path, contract in self.contracts.items():
            if contract is not None:
                say_other_intensities(path.name, contract, source)
            if contract is not None and self.teacher is not None:
                own = contract.teacher_sha256
                if own is not None and own != self.teacher.sha256:
                    say(f"{path.name} learned from another teacher; drift is to {self.teacher.path.name}")

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file by name, with the folder's name before it where a name occurs twice."""
        found: dict[str, str] = {}
        teacher = [] if self.teacher is None else [self.teacher.path]
        for path in dict.fromkeys([*teacher, *self.checkpoints, *self.contracts]):
            digest = sha256(path)
            name = path.name if found.get(path.name, digest) == digest else f"{path.resolve().parent.name}/{path.name}"
            found[name] = digest
        return found


def learn(found: Sequence[Model], teacher: Path | None, asked: str | None) -> Known:
    """Read teacher, checkpoints and contracts.

    A bundle that cannot be read is told and kept: its row will say that it failed, the others are measured.

    Raises
    ------
    InputError
        Directions differ or are not known, a checkpoint cannot be read, or there is nothing but broken bundles.
    """
    asked_direction = None if asked is None else parse_direction(asked)
    guide = None if teacher is None else load_checkpoint(teacher)
    checkpoints = {model.checkpoint: load_checkpoint(model.checkpoint) for model in found if model.checkpoint}
    contracts: dict[Path, Contract | None] = {}
    broken: BundleError | None = None
    for path in dict.fromkeys(path for model in found for path in model.bundles):
        try:
            contracts[path] = read_bundle(path).contract
        except BundleError as error:
            broken, contracts[path] = error, None
            say(f"not measured: {error}")
    if broken is not None and not checkpoints and not any(contracts.values()):
        raise broken
    networks = [*checkpoints.values(), *([guide] if guide else [])]
    told: dict[str, Direction] = {one.path.name: one.record.direction for one in networks if one.record is not None}
    told |= {path.name: contract.direction for path, contract in contracts.items() if contract is not None}
    if asked_direction is not None:
        told["--direction"] = asked_direction
    if len(set(told.values())) > 1:
        listed = ", ".join(f"{name} is {direction}" for name, direction in told.items())
        raise InputError(f"bench one direction at a time: {listed}")
    direction = next(iter(told.values())) if told else choose_direction(None, networks[0])
    data = next((one.record.data for one in checkpoints.values() if one.record is not None), None)
    return Known(direction=direction, data=data, teacher=guide, checkpoints=checkpoints, contracts=contracts)
