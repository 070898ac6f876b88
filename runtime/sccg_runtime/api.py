"""What ``from sccg_runtime import convert_series`` gives; the command line converts with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sccg_runtime.bundle import Bundle
from sccg_runtime.convert import convert
from sccg_runtime.options import ConvertOptions, ConvertResult, Format


def convert_series(
    source: Path | str,
    out: Path | str,
    bundle: Bundle,
    *,
    series: str | None = None,
    sequence: str | None = None,
    min_slices: int = 1,
    echo: int | None = None,
    window: tuple[float, float] | None = None,
    threads: int | None = None,
    force: bool = False,
    strict: bool = False,
    allow_gaps: bool = False,
    format: Format = "dicom",  # noqa: A002  (as on the command line)
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> ConvertResult:
    """Convert one DICOM series into a new folder ``0001.dcm``, ``0002.dcm`` ... in slice order, whole or not at all.

    Every slice keeps its grid (rows, columns), its position and orientation (mm, patient coordinates, LPS) and its
    frame of reference; values are HU in CT (int16) and without unit in MR (0 to 4095).

    Parameters
    ----------
    source
        Folder with DICOM files (searched with its sub-folders), one file, or a ``.zip``; other series in it are left
        alone.
    out
        Folder (or file, see ``format``) to make, apart from ``source``.
    bundle
        From :func:`sccg_runtime.load`.
    series
        SeriesInstanceUID, SeriesNumber or SeriesDescription (or a part of it); None where only one series fits.
    sequence
        Text that one of the attributes which name the MR sequence must hold, in any case.
    min_slices
        Series with fewer images are rejected.
    echo
        Which echo of an MR series with several at each position (such as PD and T2), from 1, by ascending echo time.
    window
        (centre, width) in HU, for bundles that learned from windowed CT without knowing the window.
    threads
        Threads for one slice; None: physical cores.
    force
        Replace ``out`` if it holds nothing but synthetic images, as an earlier conversion leaves it, or is a file; it
        is untouched unless the conversion succeeds.
    strict
        Refuse a series that does not look like what the network learned from.
    allow_gaps
        Convert although slices are missing.
    format
        ``"dicom"``; or ``"nifti"``: ``out`` is one ``.nii.gz`` file in RAS coordinates, with nibabel (extra ``nifti``).
    progress
        Called with (slices done, slices in all).
    notify
        Called with one line for the choice of the series and one for each that is not converted.

    Returns
    -------
    ConvertResult
        Slices, times in ms, warnings, the bundle's SHA-256; ``to_dict()`` is its JSON form.

    Raises
    ------
    InputError
        Nothing usable in ``source``, or ``out`` cannot be written; SeriesError where a series must not be converted.
    RefusedError
        ``strict`` and the series is unlike the training inputs, or the engine's output is not finite.
    MissingDependencyError
        The engine's package or nibabel is not installed.

    Example
    -------
    >>> result = convert_series("mr", "synthetic-ct", load("balanced.sccg"), series="T2 tra")
    >>> result.slices
    22
    """
    options = ConvertOptions(
        series=series,
        sequence=sequence,
        min_slices=min_slices,
        echo=echo,
        window=window,
        threads=threads,
        force=force,
        strict=strict,
        allow_gaps=allow_gaps,
        format=format,
        progress=progress,
        notify=notify,
    )
    return convert(Path(source), Path(out), bundle, options)
