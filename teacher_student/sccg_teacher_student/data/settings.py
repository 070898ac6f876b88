"""What the values of a data set mean: ``sccg.toml`` at its root, or documented assumptions.

A file looks like this (every key that is not listed here is refused)::

    spacing_mm = "unknown"      # or a number, or [row, column]: distance between pixel centres, in-plane
    simulated = false           # optional; the phantom says true

    [mr]
    kind = "percentile"
    percentile = 99.5
    foreground_above = 0.0588
    level = 0.9216

    [ct]
    kind = "hu"                 # or "display": windowed pictures, no unit
    low_hu = -1024
    high_hu = 2000
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Intensity, Modality

SETTINGS_NAME = "sccg.toml"
_KEYS = ("spacing_mm", "simulated", "mr", "ct")
_SPACING_HELP = 'spacing_mm must be "unknown", a positive number, or [row, column] in mm'
_log = logging.getLogger(__name__)

MR_ASSUMED = Intensity(modality="MR", kind="percentile", percentile=99.5, foreground_above=0.0588, level=0.9216)
"""99.5th percentile of the foreground (above 15 of 255) on 235 of 255."""
CT_PICTURES_ASSUMED = Intensity(modality="CT", kind="display")
"""PNG pictures of unknown window: no unit, never HU."""
CT_FILES_ASSUMED = Intensity(modality="CT", kind="hu", low_hu=-1024.0, high_hu=2000.0)
"""DICOM and NIfTI hold HU: -1024..2000 HU become -1..+1."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the values of a data set mean.

    Attributes
    ----------
    mr, ct
        Intensity of each modality.
    spacing_mm
        (row, column) distance between pixel centres in mm, or None where unknown (PNG) or left to the files (DICOM,
        NIfTI).
    simulated
        True where the data says of itself that it was made by a program (the phantom).
    assumed
        True where no file said any of this and documented assumptions stand in.
    origin
        Where this comes from, in words: a path, or a statement of what was assumed.
    """

    mr: Intensity
    ct: Intensity
    spacing_mm: tuple[float, float] | None
    simulated: bool = False
    assumed: bool = False
    origin: str = ""

    def __post_init__(self) -> None:
        if self.mr.modality != "MR" or self.ct.modality != "CT":
            raise InputError("data settings: mr must be of modality MR and ct of modality CT")

    def intensity(self, modality: Modality) -> Intensity:
        """Intensity of ``"MR"`` or ``"CT"``."""
        return self.mr if modality == "MR" else self.ct

    def ct_window_hu(self, where: Path) -> tuple[float, float]:
        """(low, high) in HU that become -1 and +1, for the files at ``where``.

        Raises
        ------
        InputError
            CT is of kind ``display`` and its window is unknown, so HU cannot be brought to that scale.
        """
        if self.ct.window_hu is None:
            raise InputError(
                f"{where}: CT of kind 'display' without a window cannot be made from HU; give window_center_hu"
            )
        return self.ct.window_hu


def read_settings(path: Path) -> DataSettings:
    """Read a settings file.

    Parameters
    ----------
    path
        The file itself, or a folder that holds ``sccg.toml``.

    Raises
    ------
    InputError
        There is no such file, it is not TOML, or a key is unknown, missing or out of range.

    Example
    -------
    >>> read_settings(Path("data/sccg.toml")).ct.kind
    'display'
    """
    file = path / SETTINGS_NAME if path.is_dir() else path
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a TOML file ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        return _build(values, origin=str(file))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def assumed_settings(kind: str) -> DataSettings:
    """Documented assumptions for data without ``sccg.toml``.

    Parameters
    ----------
    kind
        ``"png"``: MR already on the percentile scale, CT windowed pictures without a unit, spacing unknown.
        ``"dicom"``, ``"nifti"``: MR brought to the same percentile scale, CT in HU from -1024 to 2000, spacing from
        the files.
    """
    if kind == "png":
        ct, statement = CT_PICTURES_ASSUMED, "CT windowed pictures without a unit (not HU), spacing unknown"
    else:
        ct, statement = CT_FILES_ASSUMED, "CT in HU, window -1024..2000, spacing from the files"
    origin = f"assumed: MR 99.5th percentile of the foreground on 0.9216 of full scale, {statement}"
    return DataSettings(MR_ASSUMED, ct, None, assumed=True, origin=origin)


def find_settings(root: Path, given: Path | None, kind: str) -> DataSettings:
    """Settings of a data set: ``given`` if there is one, else ``root/sccg.toml``, else assumptions (logged)."""
    if given is not None:
        return read_settings(given)
    if (root / SETTINGS_NAME).is_file():
        return read_settings(root)
    settings = assumed_settings(kind)
    _log.warning("%s holds no %s; %s", root, SETTINGS_NAME, settings.origin)
    return settings


def _build(values: Mapping[str, Any], origin: str) -> DataSettings:
    unknown = sorted(set(values) - set(_KEYS))
    if unknown:
        raise InputError(f"unknown key {', '.join(unknown)} (known: {', '.join(_KEYS)})")
    for name in ("mr", "ct"):
        if not isinstance(values.get(name), dict):
            raise InputError(f"table [{name}] is missing")
    simulated = values.get("simulated", False)
    if not isinstance(simulated, bool):
        raise InputError("simulated must be true or false")
    return DataSettings(
        mr=Intensity.from_dict(values["mr"], "MR"),
        ct=Intensity.from_dict(values["ct"], "CT"),
        spacing_mm=_spacing(values.get("spacing_mm", "unknown")),
        simulated=simulated,
        origin=origin,
    )


def _spacing(value: Any) -> tuple[float, float] | None:
    if value == "unknown":
        return None
    numbers = value if isinstance(value, list) else [value, value]
    if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise InputError(_SPACING_HELP)
    row, column = (float(number) for number in numbers)
    if not (0 < row < float("inf") and 0 < column < float("inf")):
        raise InputError(_SPACING_HELP)
    return row, column
