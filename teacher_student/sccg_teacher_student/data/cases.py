"""Finds the cases of a data set and recognises their kind."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Modality
from sccg_teacher_student.data.dicom import DicomReader, holds_dicom
from sccg_teacher_student.data.nifti import NiftiReader, holds_nifti
from sccg_teacher_student.data.png import PngReader, holds_png
from sccg_teacher_student.data.reader import DataKind, Reader, child, some, visible
from sccg_teacher_student.data.settings import SETTINGS_NAME, DataSettings

SPLITS = ("train", "val", "test")
_log = logging.getLogger(__name__)

_LOOKED_FOR = (
    "looked for CASE/mr/*.png with CASE/ct/*.png, two DICOM series per case (CASE/mr/*.dcm with CASE/ct/*.dcm), "
    "or CASE/mr.nii.gz with CASE/ct.nii.gz, with or without train/, val/, test/ above"
)
_LOOKED_FOR_ONE = (
    "looked for CASE/*.png, CASE/*.dcm or CASE/{name}.nii.gz, with or without a folder {name}/ in each case"
)


@dataclass(frozen=True, slots=True)
class FoundCases:
    """The cases of a data set.

    Attributes
    ----------
    root
        Where ``sccg.toml`` is: the folder that was asked for, or if that is a split or a single case, one above.
    kind
        Kind of all cases.
    splits
        Split name -> case names; empty where there are no split folders.
    folders
        Case name -> its folder.
    """

    root: Path
    kind: DataKind
    splits: Mapping[str, tuple[str, ...]]
    folders: Mapping[str, Path]


def find_cases(path: Path, only: Modality | None = None) -> FoundCases:
    """List the cases below ``path``; ``only`` for folders of one modality.

    Raises
    ------
    InputError
        No case, a case of two kinds, cases of different kinds, a case in two splits, or cases beside the splits.
    """
    split_folders = {name: folder for name in SPLITS if (folder := child(path, name)) is not None}
    kinds: dict[Path, DataKind] = {}
    splits: dict[str, tuple[str, ...]] = {}
    folders: dict[str, Path] = {}
    if split_folders:
        beside = [folder for folder in visible(path) if folder.is_dir() and folder not in split_folders.values()]
        if stray := [folder.name for folder in beside if case_kind(folder, only)]:
            raise InputError(
                f"{path}: cases beside the split folders ({some(stray)}); move them into train/, val/ or test/"
            )
        if beside:
            names = some(folder.name for folder in beside)
            _log.warning("%s: %d folders beside train/, val/ or test/ are left out: %s", path, len(beside), names)
        for split, folder in split_folders.items():
            inside = _cases_in(folder, only)
            if not inside:
                raise InputError(f"{folder}: holds no case; remove the folder or fill it")
            for case, kind in inside.items():
                if case.name in folders:
                    raise InputError(f"{case}: the same case is also in {folders[case.name]}; a case has one split")
                folders[case.name] = case
                kinds[case] = kind
            splits[split] = tuple(case.name for case in inside)
    else:
        kind_here = case_kind(path, only)
        kinds = {path: kind_here} if kind_here else _cases_in(path, only)
        folders = {(case.resolve().name if case == path else case.name): case for case in kinds}
    if not kinds:
        looked = _LOOKED_FOR if only is None else _LOOKED_FOR_ONE.format(name=only.lower())
        found = some((f.name + "/" if f.is_dir() else f.name) for f in visible(path)) or "nothing"
        raise InputError(f"{path}: no cases here; {looked}; found {found}")
    first = next(iter(kinds))
    for case, kind in kinds.items():
        if kind != kinds[first]:
            raise InputError(f"{path}: kinds are mixed, {first.name} is {kinds[first]} and {case.name} is {kind}")
    return FoundCases(_root(path, single=path in kinds), kinds[first], splits, folders)


def case_kind(folder: Path, only: Modality | None = None) -> DataKind | None:
    """Kind of the case in ``folder``, or None where it is not a case.

    Raises
    ------
    InputError
        It holds more than one kind, or has ``mr/`` or ``ct/`` without any file that could be read.
    """
    places = [place for name in ("mr", "ct") if (place := child(folder, name)) is not None]
    named = bool(places)
    if not named or only is not None:
        wanted = child(folder, only.lower()) if only is not None else None
        places = [wanted or folder]
    kinds: list[DataKind] = []
    if (named or only is not None) and any(holds_png(place) for place in places):
        kinds.append("png")
    if holds_nifti(folder, only):
        kinds.append("nifti")
    if any(holds_dicom(place) for place in places):
        kinds.append("dicom")
    if len(kinds) > 1:
        raise InputError(f"{folder}: holds {' and '.join(kinds)}; keep one kind per case")
    if named and not kinds:
        files = some(f"{p.name}/{f.name}" for p in places for f in visible(p)) or "nothing"
        raise InputError(f"{folder}: neither PNG nor DICOM slices in mr/ or ct/; found {files}")
    return kinds[0] if kinds else None


def make_reader(kind: DataKind, settings: DataSettings, only: Modality | None) -> Reader:
    """The reader for cases of ``kind``."""
    if kind == "png":
        return PngReader(only)
    if kind == "dicom":
        return DicomReader(settings, only)
    return NiftiReader(settings, only)


def _cases_in(folder: Path, only: Modality | None) -> dict[Path, DataKind]:
    found: dict[Path, DataKind] = {}
    other = []
    for entry in visible(folder):
        if not entry.is_dir():
            continue
        kind = case_kind(entry, only)
        if kind is None:
            other.append(entry.name)
        else:
            found[entry] = kind
    if found and other:
        _log.warning("%s: %d folders are no cases and are left out: %s", folder, len(other), some(other))
    return found


def _root(path: Path, single: bool) -> Path:
    """``path``; or where only a folder above has the settings, and path is a split or a ``single`` case: that one."""
    places = [path, path.resolve()]
    if single:
        places.append(places[-1].parent)
    if places[-1].name.lower() in SPLITS:
        places.append(places[-1].parent)
    return next((place for place in places if (place / SETTINGS_NAME).is_file()), path)
