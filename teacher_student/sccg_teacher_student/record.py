"""What a network learned from; kept in the metadata of its checkpoint, copied into the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from sccg_runtime.contract import Contract
from sccg_runtime.direction import Direction, modalities, parse_direction
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import FloatArray, Intensity
from sccg_runtime.statistics import InputStatistics, input_statistics
from sccg_teacher_student.data.source import DataSource, spacing_differs

SCALE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What a network learned from; kept in the metadata of its checkpoint, copied into the contract.

    Attributes
    ----------
    direction
        ``"mr2ct"`` or ``"ct2mr"``.
    input_intensity, output_intensity
        Meaning of [-1, 1] on both sides.
    trained_size
        (rows, columns) in pixels.
    trained_spacing_mm
        (row, column) pixel spacing in mm, or None where the data does not say.
    resampled
        True if slices were resampled to ``trained_size``, whatever size they were stored in.
    simulated_data
        True if the phantom was the data, or that of a teacher.
    teacher_sha256
        Hash of the teacher's file, or None for a teacher.
    input_statistics
        Of the training inputs.
    data, unpaired
        Folders, as absolute paths.
    train_cases, val_cases
        Names of the cases on either side of the split.
    """

    direction: Direction
    input_intensity: Intensity
    output_intensity: Intensity
    trained_size: tuple[int, int]
    trained_spacing_mm: tuple[float, float] | None
    simulated_data: bool
    teacher_sha256: str | None
    input_statistics: InputStatistics
    data: str
    unpaired: tuple[str, ...]
    train_cases: tuple[str, ...]
    val_cases: tuple[str, ...]
    resampled: bool = False

    @property
    def ct(self) -> Intensity:
        """Of the CT slices, input or output."""
        return self.output_intensity if self.direction == "mr2ct" else self.input_intensity

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("input_intensity", "output_intensity", "input_statistics"):
            values[name] = values[name].to_dict()
        if not self.resampled:  # as earlier versions wrote it, so that their runs go on
            del values["resampled"]
        return values

    def sees(self, source: DataSource) -> DataSource:
        """``source`` at the size that the network knows, where its own slices were resampled to it."""
        return replace(source, size=self.trained_size) if self.resampled else source

    def check_intensities(self, source: DataSource, name: str) -> None:
        """InputError if grey values of ``source`` mean something else than in what the network ``name`` learned from.

        What it makes would be called by the wrong unit.
        """
        for known in (self.input_intensity, self.output_intensity):
            if source.settings.intensity(known.modality) != known:
                raise InputError(
                    f"{name} learned from {known.modality} of another intensity than {source.path} has: say with "
                    f"--intensity FILE what it learned from ({known.to_dict()})"
                )

    @classmethod
    def of(
        cls,
        source: DataSource,
        direction: Direction,
        images: Iterable[FloatArray],
        cases: tuple[tuple[str, ...], tuple[str, ...]],
        *,
        teacher_sha256: str | None = None,
        unpaired: tuple[str, ...] = (),
    ) -> TrainingRecord:
        """The record of a network that learns from ``images``, inputs (1, H, W) of one size.

        They are taken one after another. ``cases`` are those on either side of the split: (train, val).
        """
        given, made = modalities(direction)
        rest = iter(images)
        first = next(rest)
        return cls(
            direction=direction,
            input_intensity=source.settings.intensity(given),
            output_intensity=source.settings.intensity(made),
            trained_size=(first.shape[1], first.shape[2]),
            trained_spacing_mm=source.spacing_mm((*cases[0], *cases[1])),
            simulated_data=source.simulated,
            teacher_sha256=teacher_sha256,
            input_statistics=input_statistics(chain((first,), rest)),
            data=str(source.path.resolve()),
            unpaired=tuple(str(Path(path).resolve()) for path in unpaired),
            train_cases=cases[0],
            val_cases=cases[1],
            resampled=source.size is not None,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """Build from JSON (InputError where a key is missing or wrong)."""
        given = {"resampled": False} | dict(values)
        if set(given) != set(cls.__dataclass_fields__):
            raise InputError("training record: keys are missing or unknown")
        for name in ("input_intensity", "output_intensity"):
            given[name] = Intensity.from_dict(given[name])
        given["direction"] = parse_direction(given["direction"])
        given["input_statistics"] = InputStatistics.from_dict(given["input_statistics"])
        given["trained_size"] = _items(given, "trained_size", int, 2)
        if given["trained_spacing_mm"] is not None:
            given["trained_spacing_mm"] = _items(given, "trained_spacing_mm", float, 2)
        for name in ("unpaired", "train_cases", "val_cases"):
            given[name] = _items(given, name, str)
        for name, kinds in (
            ("simulated_data", bool),
            ("resampled", bool),
            ("data", str),
            ("teacher_sha256", str | None),
        ):
            if not isinstance(given[name], kinds):
                raise InputError(f"training record: {name} has the wrong type")
        return cls(**given)


def other_scale(
    name: str, learned: TrainingRecord | Contract, size: tuple[int, int], spacing_mm: tuple[float, float] | None
) -> list[str]:
    """Where slices have another scale than a network knows, in words: mm per pixel, or where one is unknown, pixels.

    ``size`` is (rows, columns), ``spacing_mm`` (row, column).
    """
    trained_mm = learned.trained_spacing_mm
    if trained_mm is not None and spacing_mm is not None:
        if spacing_differs(spacing_mm, trained_mm, SCALE_TOLERANCE):
            known, here = (f"{rows:g} x {columns:g} mm" for rows, columns in (trained_mm, spacing_mm))
            return [f"{name} learned at {known} per pixel; slices of {here}: judge with care"]
    elif size != learned.trained_size:
        trained = "x".join(map(str, learned.trained_size))
        return [f"{name} learned at {trained} pixels; slices of {size[0]}x{size[1]}: judge with care"]
    return []


def _items(values: Mapping[str, Any], name: str, kind: type, count: int | None = None) -> tuple[Any, ...]:
    """A list of JSON as a tuple, checked."""
    items = values[name]
    if not isinstance(items, list | tuple) or any(type(item) is not kind for item in items):
        raise InputError(f"training record: {name} has the wrong type")
    if count is not None and (len(items) != count or not all(0 < item < float("inf") for item in items)):
        raise InputError(f"training record: {name} is not {count} positive numbers")
    return tuple(items)
