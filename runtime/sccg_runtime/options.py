"""What a conversion is asked for, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sccg_runtime.dicom.geometry import Finding
from sccg_runtime.engine import Description

Format = Literal["dicom", "nifti"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What :func:`sccg_runtime.convert_series` was asked for, by the names of its parameters."""

    series: str | None = None
    sequence: str | None = None
    min_slices: int = 1
    echo: int | None = None
    window: tuple[float, float] | None = None
    threads: int | None = None
    force: bool = False
    strict: bool = False
    allow_gaps: bool = False
    format: Format = "dicom"
    progress: Callable[[int, int], None] | None = field(default=None, repr=False)
    notify: Callable[[str], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What was done.

    Attributes
    ----------
    slices
        Images written.
    series
        Number, modality, count, matrix and first file's name of the source series; no identifiers, unless files are
        named by them.
    chosen_because
        Why this series and no other.
    not_converted
        The other series of the folder and why they were not converted.
    warnings
        What a person should look at: input unlike the training inputs, no HU, an assumed window, and so on.
    findings
        What geometry checks found, such as a gantry tilt.
    input_range
        Modality values (HU or MR signal) that became -1 and +1.
    inner_size, run_size
        (rows, columns) of the slice at the trained scale, and of the network's input (with padding).
    ms
        Milliseconds: ``read`` (headers), ``open`` (engine), ``decode``, ``infer``, ``write`` summed over slices (they
        overlap), and ``total`` (wall time).
    bundle, bundle_sha256
        Base name and SHA-256 of the bundle.
    engine
        What ran.
    """

    slices: int
    series: str
    chosen_because: str
    not_converted: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    input_range: tuple[float, float]
    inner_size: tuple[int, int]
    run_size: tuple[int, int]
    ms: dict[str, float]
    bundle: str
    bundle_sha256: str
    engine: Description

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)
