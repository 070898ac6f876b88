"""A whole series through a generator: DICOM in, DICOM out, whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from sccg_runtime.bundle import Bundle
from sccg_runtime.contract import Contract
from sccg_runtime.dicom.decoder import close_workers
from sccg_runtime.dicom.geometry import arrange, choose_echo
from sccg_runtime.dicom.header import Header
from sccg_runtime.dicom.pixels import Plane, StoredHistogram, read_plane
from sccg_runtime.dicom.quiet import QUIET_PYDICOM
from sccg_runtime.dicom.series import apply_rules, choose_series, find_series
from sccg_runtime.dicom.write import Derivation, derived, new_uid, write_file
from sccg_runtime.engine import Description, Session, open_session
from sccg_runtime.errors import InputError, RefusedError, SeriesError
from sccg_runtime.files import whole_folder
from sccg_runtime.input_check import differences, empty_slices, turned
from sccg_runtime.intensity import FloatArray
from sccg_runtime.nifti import SUFFIX, affine_ras, import_nibabel, whole_volume
from sccg_runtime.options import ConvertOptions, ConvertResult, Format
from sccg_runtime.pipeline import answer_signals, in_order, ms_since, signals_between_items, timed
from sccg_runtime.resample import BACKGROUND, InPlanePlan, plan_in_plane
from sccg_runtime.scaling import Scaling, ct_scaling, mr_scaling
from sccg_runtime.staging import check_earlier, check_output
from sccg_runtime.statistics import SliceStatistics, slice_statistics, summarise

logger = logging.getLogger(__name__)
CACHE_BYTES = 16 * 1024**2  # what may be kept of the first pass over MR, with
ATTRIBUTES_BYTES = 128 * 1024  # for the attributes of each image
WRITERS: Mapping[Format, int] = MappingProxyType({"dicom": 2, "nifti": 1})  # slices of a volume follow each other
Writer = Callable[[int, Plane, FloatArray], None]


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

    Memory does not grow with the series but for its headers: MR is decoded once for an exact histogram and, beyond the
    first 16 MiB, once more for the network. Decoding, the network and writing overlap, a few slices apart.

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
        Replace ``out`` if it holds nothing but synthetic images, or is a synthetic volume, as an earlier conversion
        leaves it; it is untouched unless the conversion succeeds.
    strict
        Refuse a series that does not look like what the network learned from.
    allow_gaps
        Convert although slices are missing.
    format
        ``"dicom"``; or ``"nifti"``: ``out`` is one ``.nii.gz`` file in RAS coordinates, with nibabel (extra ``nifti``).
    progress
        Called with (slices done, slices in all) after each slice.
    notify
        Called with one line for the choice of the series and one for each that is not converted, before any pixel is
        read.

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
    out = Path(os.path.abspath(out))  # noqa: PTH100  (every folder has a name then; resolve() would follow a link)
    _check_format(out, format)
    result: ConvertResult | None = None
    try:
        with signals_between_items():
            try:
                with QUIET_PYDICOM:
                    check_output(out, Path(source), force=force, file=format == "nifti")
                    result = _Conversion(Path(source), bundle, options).run(out)
            finally:
                close_workers()
    except KeyboardInterrupt:
        if result is None:
            raise
        raise KeyboardInterrupt("the output is complete") from None
    return result


def _check_format(out: Path, chosen: Format) -> None:
    """Before any work is done: is this the name of such an output, and is its library here?"""
    if chosen not in WRITERS:
        raise InputError(f"format {chosen!r} is none of {', '.join(WRITERS)}")
    if chosen == "nifti":
        import_nibabel()
    if out.name.endswith(SUFFIX) != (chosen == "nifti"):
        raise InputError(f"{out.name}: --format nifti writes a file called {SUFFIX}, --format dicom a folder")


class _Conversion:
    """One run; holds what its stages share."""

    def __init__(self, source: Path, bundle: Bundle, options: ConvertOptions) -> None:
        self.began = time.perf_counter()
        self.bundle, self.options, self.contract = bundle, options, bundle.contract
        self.ms = dict.fromkeys(("read", "open", "decode", "infer", "write", "total"), 0.0)
        if options.window is not None and self.contract.input_intensity.modality != "CT":
            raise InputError("--window is for CT input; this bundle takes MR")
        if options.window is not None and not (all(map(math.isfinite, options.window)) and options.window[1] >= 1):
            raise InputError("--window: centre and width must be numbers, the width at least 1 HU")
        if options.echo is not None and (options.echo < 1 or self.contract.input_intensity.modality != "MR"):
            raise InputError("--echo is for MR input, and counts from 1")
        series, foreign = find_series(source, self.contract.input_intensity.modality)
        series = apply_rules(series, sequence=options.sequence, min_slices=options.min_slices)
        self.series = choose_series(series, options.series)
        self.because = "named by --series" if options.series is not None else "the only series that fits"
        self.others = tuple(
            f"{item.label}: {item.rejected or 'not chosen'}" for item in series if item is not self.series
        )
        if options.notify is not None:
            options.notify(f"converting {self.series.label}: {self.because}")
            for other in self.others:
                options.notify(f"not converted: {other}")
        headers, chosen = choose_echo(self.series.headers, options.echo)
        self.geometry = arrange(headers, allow_gaps=options.allow_gaps)
        self.findings = (*chosen, *self.geometry.findings)
        self.affine = affine_ras(self.geometry) if options.format == "nifti" else None
        self.plan = plan_in_plane(self.geometry.size, self.geometry.spacing_mm, self.contract)
        self.warnings = _standing_warnings(self.contract, self.plan, foreign)
        self.cache: dict[int, Plane] = {}
        self.ms["read"] = ms_since(self.began)
        answer_signals()

    def run(self, out: Path) -> ConvertResult:
        """All slices into ``out``."""
        with ThreadPoolExecutor(1) as opener:
            opening = opener.submit(timed, self._open)
            scaling = self._scaling()
            session, self.ms["open"] = opening.result()
        answer_signals()
        if scaling.warning is not None:
            self.warnings.append(scaling.warning)
        description = session.description
        derivation = self._derivation(scaling, description)
        try:
            with self._output(out, derivation) as write:
                self._slices(scaling, session, write)
        except OSError as error:
            raise InputError(f"{out.name} cannot be written: {error.strerror or type(error).__name__}") from None
        self.ms["total"] = ms_since(self.began)
        logger.info("converted %d slices in %.0f ms", len(self.geometry.headers), self.ms["total"])
        return ConvertResult(
            slices=len(self.geometry.headers),
            series=self.series.label,
            chosen_because=self.because,
            not_converted=self.others,
            warnings=tuple(self.warnings),
            findings=self.findings,
            input_range=(scaling.low, scaling.high),
            inner_size=self.plan.inner_size,
            run_size=self.plan.run_size,
            ms={name: round(value, 3) for name, value in self.ms.items()},
            bundle=self.bundle.name,
            bundle_sha256=self.bundle.sha256,
            engine=description,
        )

    def _open(self) -> Session:
        return open_session(self.bundle, size=self.plan.run_size, threads=self.options.threads)

    def _scaling(self) -> Scaling:
        if self.contract.input_intensity.modality == "CT":
            return ct_scaling(self.geometry.headers, self.contract, self.options.window)
        histogram, cached = StoredHistogram(), 0
        with ThreadPoolExecutor(2) as pool:
            for index, (plane, elapsed) in enumerate(in_order(pool, self._decode, self.geometry.headers)):
                histogram.add(plane)
                self.ms["decode"] += elapsed
                cached += plane.stored.nbytes + ATTRIBUTES_BYTES
                if cached <= CACHE_BYTES:
                    self.cache[index] = plane
        return mr_scaling(histogram, self.contract)

    def _decode(self, header: Header) -> tuple[Plane, float]:
        return timed(lambda: read_plane(header, self.contract.input_intensity.modality))

    def _derivation(self, scaling: Scaling, description: Description) -> Derivation:
        started = datetime.now()
        stamp = f"{time.time_ns()}"
        first = self.geometry.headers[0]
        parts = (first.series_uid, self.bundle.sha256, stamp)
        notes = [scaling.note]
        notes += [f"{finding.text[0].upper()}{finding.text[1:]}." for finding in self.findings]
        if self.contract.output_intensity.kind == "display":
            notes.insert(0, "Pixel values have no unit: they are NOT HU.")
        if self.contract.simulated_data:
            notes.insert(0, "The network learned from simulated data only: not for clinical use.")
        return Derivation(
            contract=self.contract,
            bundle_sha256=self.bundle.sha256,
            engine=f"{description.engine} {description.engine_version}",
            layers=description.layers,
            series_uid=new_uid("series", *parts),
            frame_of_reference_uid=None if first.frame_of_reference_uid else new_uid("frame of reference", *parts),
            started=started,
            notes=tuple(notes),
        )

    @contextlib.contextmanager
    def _output(self, out: Path, derivation: Derivation) -> Iterator[Writer]:
        """Give what writes one slice."""
        if self.affine is not None:
            (rows, columns), count = self.geometry.size, len(self.geometry.headers)
            shape, force = (columns, rows, count), self.options.force
            with whole_volume(out, self.affine, shape, derivation, force=force) as append:
                yield lambda index, plane, result: append(result)
            return
        with whole_folder(out, replaceable=check_earlier if self.options.force else None) as folder:

            def write(index: int, plane: Plane, result: FloatArray) -> None:
                path = folder / f"{index + 1:04d}.dcm"
                try:
                    made = derived(plane.dataset, result, derivation, plane.frame_number)
                    if plane.frame_number is not None or made.InstanceNumber is None:
                        made.InstanceNumber = index + 1  # frames are counted in each file, and there may be several
                    write_file(path, made)
                except SeriesError as error:
                    raise SeriesError(f"{self.geometry.headers[index].name}: {error}") from None

            yield write

    def _slices(self, scaling: Scaling, session: Session, write: Writer) -> None:
        """Decode, infer and write, overlapped; at most a few slices in memory."""
        headers = self.geometry.headers

        def prepare(index: int) -> tuple[Plane, FloatArray, float]:
            plane, elapsed = (self.cache.pop(index), 0.0) if index in self.cache else self._decode(headers[index])
            run, scaled_ms = timed(lambda: self.plan.to_run(scaling.to_unit(plane.values())))
            return plane, run, elapsed + scaled_ms

        def finish(made: tuple[int, Plane, FloatArray]) -> float:
            index, plane, output = made

            def written() -> None:
                result = self.plan.to_source(output)
                if (outside := plane.outside) is not None:
                    result[outside] = BACKGROUND
                write(index, plane, result)

            return timed(written)[1]

        rows = []

        def inferred(prepared: Iterator[tuple[Plane, FloatArray, float]]) -> Iterator[tuple[int, Plane, FloatArray]]:
            for index, (plane, run, elapsed) in enumerate(prepared):
                self.ms["decode"] += elapsed
                rows.append(slice_statistics(run, self.plan.inner))
                began = time.perf_counter()
                try:
                    output = session(run)
                except RefusedError as error:
                    raise RefusedError(f"slice {index + 1} ({headers[index].name}): {error}") from None
                self.ms["infer"] += ms_since(began)
                yield index, plane, output
                if self.options.progress is not None:
                    self.options.progress(index + 1, len(headers))

        with ThreadPoolExecutor(2) as decoders, ThreadPoolExecutor(WRITERS[self.options.format]) as writers:
            for elapsed in in_order(writers, finish, inferred(in_order(decoders, prepare, range(len(headers))))):
                self.ms["write"] += elapsed
        self._check_input(rows)
        answer_signals()  # the last time that the output can be stopped

    def _check_input(self, rows: list[SliceStatistics]) -> None:
        headers, trained = self.geometry.headers, self.contract.input_statistics
        unlike = turned(headers[0].orientation or ())
        unlike += empty_slices([row.foreground_share for row in rows], [header.name for header in headers])
        if trained is not None:
            unlike += differences(summarise(rows), trained)
        found = [f"input unlike the training inputs: {text}" for text in unlike]
        if trained is None:
            found.append("the bundle does not say what its training inputs looked like: the input was not checked")
        if found and self.options.strict:
            raise RefusedError("; ".join(found))
        self.warnings += found


def _standing_warnings(contract: Contract, plan: InPlanePlan, foreign: int) -> list[str]:
    """What the contract and the folder say, whatever the pixels."""
    found = []
    if contract.simulated_data:
        found.append("the network learned from simulated data only: not for clinical use")
    if contract.output_intensity.kind == "display":
        found.append(
            "the output has no Hounsfield units (Rescale Type US, SYNTHETIC, NOT HU): not for dose calculation"
        )
    if not plan.scale_known:
        size = f"{contract.trained_size[0]}x{contract.trained_size[1]}"
        found.append(
            f"the bundle does not know its training pixel spacing: the whole slice was fitted to {size} pixels"
        )
    if foreign:
        found.append(f"{foreign} files or links to folders are not DICOM and were left out")
    return found
