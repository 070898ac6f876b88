"""The contract: everything that must be known to run a compressed generator and to trust its output.

A frozen dataclass that travels as ``contract.json`` inside a bundle. A missing or unknown key is an error, never a
default; what is not known is null, and ``unknown`` gives the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from sccg_runtime.direction import Direction, modalities, parse_direction
from sccg_runtime.errors import BundleError, InputError
from sccg_runtime.intensity import Intensity
from sccg_runtime.statistics import InputStatistics

FORMAT_VERSION = 1
Target = Literal["openvino", "ort", "tensorrt-rtx", "tensorrt"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
CPU_TARGETS: tuple[Target, ...] = ("openvino", "ort")
NULLABLE = frozenset(
    {"trained_spacing_mm", "precision_ran", "opset", "teacher_sha256", "calibration", "input_statistics"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a bundle's engine is, what it takes, what it gives, and what it was measured to do.

    Attributes
    ----------
    format_version
        Version of the bundle format (1).
    direction
        ``"mr2ct"`` or ``"ct2mr"``.
    input_intensity, output_intensity
        How stored pixel values become [-1, 1], and back.
    trained_size
        (rows, columns) in pixels of the slices that the network learned from.
    trained_spacing_mm
        (row, column) pixel spacing in mm of those slices, or None.
    engine_size
        (rows, columns) that the engine was compiled for.
    stride
        Another size is possible if this divides both sides.
    target
        ``"openvino"``, ``"ort"``, ``"tensorrt-rtx"`` or ``"tensorrt"``.
    precision_asked
        ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``.
    precision_ran
        Convolutions by the precision that the engine reported, such as ``{"int8": 10, "bf16": 1}``; an OpenVINO session
        uses bf16 beside int8 only where it stands here.
    engine, engine_version
        Name and version of the inference engine that the model was built for.
    opset
        ONNX operator set, where ONNX was on the way.
    student
        Name of the network: of a student, such as ``"s2d-48x4"``, or of an exported teacher (``"resnet-64x9-in"``).
    generator
        The GeneratorSpec as a dictionary.
    generator_sha256, teacher_sha256
        SHA-256 of the checkpoint that was exported and of the teacher that it learned from.
    calibration
        Which slices set the INT8 ranges: count, seed, names and their hash.
    input_statistics
        What training inputs looked like.
    drift
        Figures of METRICS: engine against its FP32 network and, where known, against teacher and reference.
    drift_measured_on
        ``"engine"``, or ``"graph"`` where this machine cannot run the engine.
    simulated_data
        True if the network learned from the phantom.
    members
        SHA-256 of every other member of the bundle, by name.
    created_by
        Program and version that wrote the bundle.
    unknown
        Field name -> reason, for each field that is None.
    """

    format_version: int
    direction: Direction
    input_intensity: Intensity
    output_intensity: Intensity
    trained_size: tuple[int, int]
    trained_spacing_mm: tuple[float, float] | None
    engine_size: tuple[int, int]
    stride: int
    target: Target
    precision_asked: Precision
    precision_ran: dict[str, int] | None
    engine: str
    engine_version: str
    opset: int | None
    student: str
    generator: dict[str, Any]
    generator_sha256: str
    teacher_sha256: str | None
    calibration: dict[str, Any] | None
    input_statistics: InputStatistics | None
    drift: dict[str, Any]
    drift_measured_on: Literal["engine", "graph"]
    simulated_data: bool
    members: dict[str, str]
    created_by: str
    unknown: dict[str, str]

    def __post_init__(self) -> None:
        source, target = modalities(self.direction)
        if (self.input_intensity.modality, self.output_intensity.modality) != (source, target):
            raise BundleError(f"contract: intensities do not fit direction {self.direction}")
        if self.stride < 1 or any(side < 1 or side > 4096 for side in self.engine_size + self.trained_size):
            raise BundleError("contract: sizes must be between 1 and 4096 pixels, the stride at least 1")
        if any(side % self.stride for side in self.engine_size):
            raise BundleError(f"contract: engine_size {self.engine_size} is not a multiple of stride {self.stride}")
        if self.drift_measured_on == "graph" and self.runs_on_cpu:
            raise BundleError(f"contract: drift of an {self.target} engine must be measured on the engine")
        spacing = self.trained_spacing_mm
        if spacing is not None and not all(0.01 <= value <= 20 for value in spacing):
            raise BundleError(f"contract: trained_spacing_mm {spacing} is no pixel spacing")
        for name in NULLABLE:
            if (getattr(self, name) is None) != (name in self.unknown):
                raise BundleError(f"contract: {name} must either be known or have a reason in unknown")
        for name, digest in self.members.items():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise BundleError(f"contract: {name} has no SHA-256")
        if set(self.unknown) - NULLABLE:
            raise BundleError(f"contract: {', '.join(sorted(set(self.unknown) - NULLABLE))} cannot be unknown")

    @property
    def runs_on_cpu(self) -> bool:
        """Whether sccg-runtime runs this target; False: the engine needs an NVIDIA GPU and the engineer's tools."""
        return self.target in CPU_TARGETS

    def to_json(self) -> str:
        """JSON text, keys in the order of the fields, two spaces deep. No NaN and no infinity."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["input_intensity"] = self.input_intensity.to_dict()
        values["output_intensity"] = self.output_intensity.to_dict()
        values["input_statistics"] = self.input_statistics.to_dict() if self.input_statistics else None
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Contract:
        """Read a contract; nothing is filled in.

        Raises
        ------
        BundleError
            Not JSON, another format version, a key that is missing or unknown, or a value of the wrong type.
        """
        try:
            values = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"contract.json is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise BundleError("contract.json is not an object")
        version = values.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise BundleError(f"bundle format {version!r} is not {FORMAT_VERSION}: export it again with this release")
        names = {field.name for field in fields(cls)}
        for problem, keys in (("lacks", names - set(values)), ("has unknown", set(values) - names)):
            if keys:
                raise BundleError(f"contract.json {problem} {', '.join(sorted(keys))}")
        try:
            return cls(**_typed(values))
        except BundleError:
            raise
        except (InputError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"contract: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:16]} is too large a number")
    return value


def parse_target(text: str) -> Target:
    """Return ``text`` as a target (InputError if it is none)."""
    for target in get_args(Target):
        if text == target:
            return text  # type: ignore[return-value]
    raise InputError(f"target {text!r} is none of {', '.join(get_args(Target))}")


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check each JSON value's type and give the dataclass's types."""
    typed: dict[str, Any] = dict(values)
    typed["direction"] = parse_direction(_checked(values, "direction", str))
    for name in ("input_intensity", "output_intensity"):
        typed[name] = Intensity.from_dict(_checked(values, name, dict))
    for name in ("trained_size", "engine_size"):
        typed[name] = _numbers(values, name, int)
    if values["trained_spacing_mm"] is not None:
        typed["trained_spacing_mm"] = _numbers(values, "trained_spacing_mm", float)
    for name, choices in (
        ("target", get_args(Target)),
        ("precision_asked", get_args(Precision)),
        ("drift_measured_on", ("engine", "graph")),
    ):
        if values[name] not in choices:
            raise BundleError(f"contract: {name} {values[name]!r} is none of {', '.join(choices)}")
    for name in ("engine", "engine_version", "student", "generator_sha256", "created_by"):
        _checked(values, name, str)
    for name in ("generator", "drift", "members", "unknown"):
        _checked(values, name, dict)
    _checked(values, "stride", int)
    _checked(values, "simulated_data", bool)
    for name, kind in (("opset", int), ("teacher_sha256", str), ("calibration", dict), ("precision_ran", dict)):
        if values[name] is not None:
            _checked(values, name, kind)
    ran = values["precision_ran"]
    if ran is not None and not (ran and all(type(count) is int for count in ran.values())):
        raise BundleError("contract: precision_ran must count convolutions by precision")
    for name in ("members", "unknown"):
        if not all(isinstance(value, str) for value in values[name].values()):
            raise BundleError(f"contract: {name} must map names to text")
    if values["input_statistics"] is not None:
        typed["input_statistics"] = InputStatistics.from_dict(_checked(values, "input_statistics", dict))
    return typed


def _checked(values: Mapping[str, Any], name: str, kind: type) -> Any:
    value = values[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BundleError(f"contract: {name} is not of type {kind.__name__}")
    return value


def _numbers(values: Mapping[str, Any], name: str, kind: type) -> tuple[Any, Any]:
    pair = values[name]
    allowed = (int,) if kind is int else (int, float)
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(item) in allowed for item in pair):
        raise BundleError(f"contract: {name} is not a pair of numbers")
    return kind(pair[0]), kind(pair[1])
