"""Opens a data set of any accepted kind and gives its pairs, one slice at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sccg_bench.protocols import Pair
from sccg_runtime.errors import InputError
from sccg_runtime.intensity import Modality
from sccg_runtime.resample import resize
from sccg_teacher_student.data.cases import find_cases, make_reader
from sccg_teacher_student.data.lesion import read_lesion, resize_lesion, strays
from sccg_teacher_student.data.reader import DataKind, Reader, some
from sccg_teacher_student.data.settings import SETTINGS_NAME, DataSettings, find_settings, read_settings

TOLERANCE = 0.01
_log = logging.getLogger(__name__)


def spacing_differs(one_mm: tuple[float, float], other_mm: tuple[float, float], tolerance: float = TOLERANCE) -> bool:
    """Whether two (row, column) spacings in mm lie more than ``tolerance`` (a share) apart."""
    return any(abs(a / b - 1) > tolerance for a, b in zip(one_mm, other_mm, strict=True))


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set on disk. Slices are read when asked for; instances can be pickled to worker processes.

    Attributes
    ----------
    path
        The folder that was opened.
    kind
        ``"png"``, ``"dicom"`` or ``"nifti"``.
    settings
        What the values mean; ``settings.assumed`` says whether a file said so.
    splits
        ``train``, ``val`` and ``test`` with their cases, as far as such folders are there; else empty.
    folders
        Case name -> its folder, in natural order.
    reader
        Reads one case of this kind.
    size
        (rows, columns) that every slice is resampled to over its whole area, or None: as it is stored.
    """

    path: Path
    kind: DataKind
    settings: DataSettings
    splits: Mapping[str, tuple[str, ...]]
    folders: Mapping[str, Path]
    reader: Reader
    size: tuple[int, int] | None = None

    @property
    def simulated(self) -> bool:
        """True where the data says of itself that it is simulated."""
        return self.settings.simulated

    @property
    def cases(self) -> tuple[str, ...]:
        """All case names (patients), over all splits, in natural order within each split."""
        return tuple(self.folders)

    def slices(self, case: str) -> tuple[str, ...]:
        """Slice names of a case, in order: those that both modalities have.

        Slices without a partner, and lesion masks without a slice, are counted in a warning in the log. A case of one
        modality gives all its slices.

        Raises
        ------
        InputError
            There is no such case, or its two modalities have no slice in common.
        """
        found = self.reader.names(self._folder(case))
        paired, unpaired = found.paired, found.unpaired
        if not paired:
            has = f"{len(found.mr)} MR and {len(found.ct)} CT slices with none in common" if unpaired else "no slices"
            raise InputError(f"{self.folders[case]}: {has} ({some(unpaired) or 'nothing found'})")
        if unpaired:
            _log.warning("%s: %d slices have no partner and are left out: %s", case, len(unpaired), some(unpaired))
        if lost := strays(self.folders[case], (*found.mr, *found.ct)):
            _log.warning("%s: no slice has the name of lesion/%s", case, some(lost))
        return paired

    def load(self, case: str, slice: str) -> Pair:  # noqa: A002
        """Read one pair; ``mr`` and ``ct`` are (1, H, W) float32 in [-1, 1], or None where the case has none.

        ``lesion`` is (H, W) bool where somebody drew one, see :mod:`sccg_teacher_student.data.lesion`.

        Raises
        ------
        InputError
            There is no such case or slice, its files cannot be used, or ``size`` has another aspect.
        """
        folder = self._folder(case)
        mr, ct = self.reader.load(folder, slice)
        sizes = [(image.shape[1], image.shape[2]) for image in (mr, ct) if image is not None]
        lesion = read_lesion(folder, slice, sizes[0])
        if self.size is not None:
            if abs(sizes[0][0] * self.size[1] / (sizes[0][1] * self.size[0]) - 1) > TOLERANCE:
                stored, wanted = ("x".join(map(str, size)) for size in (sizes[0], self.size))
                raise InputError(
                    f"{case}/{slice} is {stored} pixels: resampled to {wanted} it would be stretched; "
                    "train with --size stored, or with a size of that aspect"
                )
            mr, ct = (None if image is None else resize(image[0], self.size)[None] for image in (mr, ct))
            lesion = None if lesion is None else resize_lesion(lesion, self.size)
        return Pair(case=case, slice=slice, mr=mr, ct=ct, lesion=lesion)

    def pairs(self, cases: Iterable[str] | None = None) -> Iterator[Pair]:
        """Read all slices of ``cases`` (default: all), one after the other."""
        for case in self.cases if cases is None else cases:
            for name in self.slices(case):
                yield self.load(case, name)

    def spacing_mm(self, cases: Iterable[str] | None = None) -> tuple[float, float] | None:
        """(row, column) in-plane spacing in mm that ``cases`` (default: all) share, or None where unknown.

        Where slices are resampled, it is that of the resampled ones.

        Raises
        ------
        InputError
            The cases differ by more than 1 percent, from each other or from the settings.
        """
        shared: tuple[float, float] | None = None
        first = ""
        for case in self.cases if cases is None else cases:
            found = self._spacing_of(case)
            if found is None:
                continue
            if shared is None:
                shared, first = found, case
            self._check_spacing(case, found, first, shared)
        return shared

    def _spacing_of(self, case: str) -> tuple[float, float] | None:
        own, stated = self.reader.spacing_mm(self._folder(case)), self.settings.spacing_mm
        if own is not None and stated is not None:
            self._check_spacing(case, own, self.settings.origin, stated)
        spacing = stated or own
        if spacing is None or self.size is None:
            return spacing
        rows, columns = self._stored_size(case)
        return spacing[0] * rows / self.size[0], spacing[1] * columns / self.size[1]

    def _check_spacing(self, case: str, own: tuple[float, float], first: str, shared: tuple[float, float]) -> None:
        if spacing_differs(own, shared):
            raise InputError(
                f"{self.path}: spacing of {case} is {own[0]:g} x {own[1]:g} mm, of {first} {shared[0]:g} x "
                f"{shared[1]:g} mm; resample all cases to one spacing"
            )

    def _stored_size(self, case: str) -> tuple[int, int]:
        """(rows, columns) of a case's slices before they are resampled; a series or volume has one grid."""
        names = self.slices(case)
        read = (self.reader.load(self._folder(case), name) for name in (names if self.kind == "png" else names[:1]))
        found = {image.shape[1:] for images in read for image in images if image is not None}
        if len(found) != 1:
            listed = ", ".join("x".join(map(str, size)) for size in sorted(found))
            raise InputError(f"{self.path}: {case} has slices of {listed} pixels: they have no common spacing")
        rows, columns = found.pop()
        return rows, columns

    def _folder(self, case: str) -> Path:
        folder = self.folders.get(case)
        if folder is None:
            raise InputError(f"{self.path}: no case {case!r} (cases: {some(self.cases, 8)})")
        return folder


def open_data(path: Path, *, settings: Path | None = None) -> DataSource:
    """Open a folder of paired cases: PNG, DICOM (the phantom included) or NIfTI.

    Parameters
    ----------
    path
        Folder of cases, with or without ``train/``, ``val/``, ``test/`` above them; or a single case.
    settings
        A settings file that takes the place of ``sccg.toml`` (``--intensity FILE``). It does not make simulated
        data real: what the data set's own file says about that still holds.

    Raises
    ------
    InputError
        There is no such folder, it holds no case of a known kind, kinds are mixed, a case is in two splits, or a
        settings file cannot be used.

    Example
    -------
    >>> source = open_data(Path("data"))
    >>> pair = source.load("case01", source.slices("case01")[0])
    >>> pair.mr.shape
    (1, 256, 256)
    """
    return _open(path, settings, only=None)


def open_unpaired(
    path: Path, modality: Modality, settings: Path | None = None, paired: DataSettings | None = None
) -> DataSource:
    """Open a folder of cases of one modality: ``CASE/*.png``, ``CASE/*.dcm``, or one side of a paired folder.

    ``paired``: settings of the paired data, which a folder without a settings file of its own has, too, unless they
    were assumed.

    Raises
    ------
    InputError
        As :func:`open_data`.
    """
    if modality not in ("MR", "CT"):
        raise InputError(f"modality {modality!r} is not MR or CT")
    return _open(path, settings, only=modality, paired=paired)


def _open(path: Path, settings: Path | None, only: Modality | None, paired: DataSettings | None = None) -> DataSource:
    if not path.is_dir():
        raise InputError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    found = find_cases(path, only)
    own = found.root / SETTINGS_NAME
    if paired is None or paired.assumed or settings is not None or own.is_file():
        chosen = find_settings(found.root, settings, found.kind)
    else:
        chosen = paired
    if settings is not None and own.is_file():
        chosen = replace(chosen, simulated=chosen.simulated or read_settings(own).simulated)
    reader = make_reader(found.kind, chosen, only)
    return DataSource(path, found.kind, chosen, found.splits, found.folders, reader)
