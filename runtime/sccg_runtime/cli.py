"""``sccg-runtime convert | info | selftest``: one line for an error, results on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sccg_runtime import __version__
from sccg_runtime.errors import SccgError

if TYPE_CHECKING:
    from sccg_runtime.options import ConvertResult

_UNUSED = ("openvino.tools.ovc", "gdcm")  # OpenVINO's model converter; a decoder that works in another process
_EPILOG = "exit codes: 0 done, 2 bad input, 3 refused by a check, 4 not trusted, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code (0 done, 2 bad input, 3 refused, 4 not trusted, 130 interrupted)."""
    _open_missing_streams()
    options = _parser().parse_args(arguments)
    previous = signal.signal(signal.SIGTERM, _terminated) if _in_main_thread() else None
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        _say(f"interrupted; {interrupt.args[0] if interrupt.args else 'nothing unfinished was left behind'}")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SccgError as error:
        if options.debug:
            raise
        _say(f"error: {error}")
        return error.exit_code
    except MemoryError:
        if options.debug:
            raise
        _say("error: not enough memory: end other programs and try again")
        return 2
    except Exception as error:
        if options.debug:
            raise
        _say(f"error: unexpected {type(error).__name__}: run again with --debug and report it")
        return 2
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def start() -> int:
    """:func:`main` in a process of its own: what its libraries import and nothing here uses is kept out."""
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # importing it fails from here on
    return main()


def _open_missing_streams() -> None:
    """A service may start this without streams: no file that is opened later may get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sccg-runtime",
        description="Convert MR and CT head series with a compressed generator: DICOM in, DICOM out, CPU only.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"sccg-runtime {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show a traceback for errors (may show file paths)")
    common.add_argument(
        "--require-signature",
        metavar="PUBKEY",
        type=Path,
        help="refuse the bundle (exit code 4) unless FILE.sccg.sig is its signature and fits this public key",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    convert = commands.add_parser(
        "convert", parents=[common], help="convert one DICOM series into a new one", epilog=_EPILOG
    )
    convert.add_argument("source", metavar="DICOM_DIR", type=Path, help="folder (searched with sub-folders) or .zip")
    convert.add_argument("out", metavar="OUT", type=Path, help="folder to make; with --format nifti: .nii.gz file")
    convert.add_argument("--bundle", metavar="FILE.sccg", type=Path, required=True, help="the generator")
    convert.add_argument(
        "--series", metavar="S", help="UID, number, (part of the) description, or :N as listed, where several fit"
    )
    convert.add_argument("--sequence", metavar="TEXT", help="only series whose MR sequence is named so, such as T2")
    convert.add_argument("--min-slices", type=_positive, default=1, metavar="N", help="only series of N slices or more")
    convert.add_argument("--echo", type=_positive, metavar="N", help="N-th echo time of a series that holds several")
    convert.add_argument(
        "--window", nargs=2, type=float, metavar=("CENTER", "WIDTH"), help="HU window of a bundle that knows none"
    )
    convert.add_argument("--threads", type=_positive, metavar="N", help="threads per slice (default: physical cores)")
    convert.add_argument("--force", action="store_true", help="replace OUT, if it holds or is synthetic images only")
    convert.add_argument("--strict", action="store_true", help="refuse input unlike the training inputs (exit code 3)")
    convert.add_argument("--allow-gaps", action="store_true", help="convert although slices are missing")
    convert.add_argument(
        "--format", choices=("dicom", "nifti"), default="dicom", help="nifti: one volume (default: dicom)"
    )
    convert.add_argument("--json", metavar="FILE", help="write the result as JSON; - is stdout")
    convert.set_defaults(command=_convert)

    info = commands.add_parser("info", parents=[common], help="show what a bundle is", epilog=_EPILOG)
    info.add_argument("bundle", metavar="FILE.sccg", type=Path)
    info.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the whole contract as JSON; - is stdout")
    info.set_defaults(command=_info)

    test = commands.add_parser(
        "selftest", parents=[common], help="check that this machine computes what the exporter did", epilog=_EPILOG
    )
    test.add_argument("bundle", metavar="FILE.sccg", type=Path)
    test.add_argument("--threads", type=_positive, metavar="N", help="threads per slice (default: physical cores)")
    test.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the result as JSON; - is stdout")
    test.set_defaults(command=_selftest)
    return parser


def _convert(options: argparse.Namespace) -> int:
    from sccg_runtime import convert_series, load

    if options.json not in (None, "-"):
        _check_json(Path(options.json), options.out)
    result = convert_series(
        options.source,
        options.out,
        load(options.bundle, public_key=options.require_signature),
        series=options.series,
        sequence=options.sequence,
        min_slices=options.min_slices,
        echo=options.echo,
        window=tuple(options.window) if options.window else None,
        threads=options.threads,
        force=options.force,
        strict=options.strict,
        allow_gaps=options.allow_gaps,
        format=options.format,
        progress=_progress if sys.stderr.isatty() else None,
        notify=_say,
    )
    for finding in result.findings:
        _say(f"note: {finding.text}")
    for warning in result.warnings:
        _say(f"warning: {warning}")
    if options.json is not None:
        _write_json(options.json, result.to_dict() | {"out": str(options.out)}, "; the output is complete")
    if options.json != "-":
        _show(_summary(result, options.out))
    return 0


def _summary(result: ConvertResult, out: Path) -> str:
    ms, engine = result.ms, result.engine
    lines = [
        f"{result.slices} slices of {result.series} -> {out}",
        f"bundle {result.bundle}, {engine.engine} {engine.engine_version}, {engine.threads} threads",
        f"network {ms['infer'] / result.slices:.1f} ms per slice, {ms['total'] / 1000:.2f} s in all "
        f"(reading {ms['read']:.0f} ms, engine {ms['open']:.0f}, decoding {ms['decode']:.0f}, "
        f"writing {ms['write']:.0f}; they overlap)",
    ]
    return "\n".join(map(_printable, lines))


def _info(options: argparse.Namespace) -> int:
    from sccg_runtime import load

    bundle = load(options.bundle, public_key=options.require_signature)
    contract = bundle.contract
    if options.json is not None:
        _write_json(options.json, json.loads(contract.to_json()) | {"sha256": bundle.sha256})
        if options.json == "-":
            return 0
    spacing = contract.trained_spacing_mm
    ran = contract.precision_ran
    rows = {
        "file": f"{bundle.name}, {sum(map(len, bundle.members.values())) / 1024**2:.2f} MiB",
        "sha256": bundle.sha256,
        "direction": contract.direction,
        "input": _intensity(contract.input_intensity.to_dict()),
        "output": _intensity(contract.output_intensity.to_dict()),
        "learned at": f"{contract.trained_size[0]}x{contract.trained_size[1]} pixels, "
        + (
            f"{spacing[0]:g}x{spacing[1]:g} mm"
            if spacing
            else f"spacing unknown ({contract.unknown['trained_spacing_mm']})"
        ),
        "engine": f"{contract.engine} {contract.engine_version}, {contract.engine_size[0]}x{contract.engine_size[1]}"
        + ("" if contract.runs_on_cpu else "; needs an NVIDIA GPU, sccg-runtime cannot run it"),
        "precision": f"{contract.precision_asked}; ran "
        + (
            ", ".join(f"{name} {count}" for name, count in ran.items())
            if ran
            else f"unknown ({contract.unknown['precision_ran']})"
        ),
        "student": contract.student,
        "drift": f"measured on the {contract.drift_measured_on}: "
        + (", ".join(f"{name} {value:.4g}" for name, value in _drift(contract.drift)) or "see drift.json"),
        "data": "simulated only: not for clinical use" if contract.simulated_data else "real",
        "made by": contract.created_by,
    }
    width = max(map(len, rows))
    _show("\n".join(f"{name:<{width}}  {_printable(value)}" for name, value in rows.items()))
    return 0


def _drift(drift: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures worth a line: what export did, and how far the teacher is."""
    groups = [drift.get(name) for name in ("engine_drift", "drift")]
    found = {name: value for group in groups if isinstance(group, dict) for name, value in group.items()}
    names = ("engine_to_fp32_psnr_db", "engine_delta_psnr_db", "engine_delta_ssim", "to_teacher_psnr_db")
    return [(name, found[name]) for name in names if isinstance(found.get(name), int | float)]


def _intensity(values: dict[str, Any]) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in values.items() if name not in ("modality", "kind", "unit"))
    return f"{values['modality']} {values['kind']}" + (f" ({rest})" if rest else "")


def _selftest(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from sccg_runtime import load

    result = load(options.bundle, public_key=options.require_signature).selftest(threads=options.threads)
    if options.json is not None:
        _write_json(options.json, asdict(result))
    if options.json != "-":
        _show(
            f"{'passed' if result.passed else 'FAILED'}: {result.slices} slices, {result.elapsed_ms:.0f} ms, "
            f"{result.description.engine} {result.description.engine_version}, layers {result.description.layers}\n"
            f"to the exported engine {result.to_engine_db:.1f} dB, to FP32 {result.to_fp32_db:.1f} dB "
            f"(at export {result.stored_to_fp32_db:.1f} dB); needed: {result.limits}"
        )
    result.require()
    return 0


def _write_json(target: str, values: dict[str, Any], done: str = "") -> None:
    from sccg_runtime.errors import InputError
    from sccg_runtime.files import write_text

    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        write_text(Path(target), text)
    except OSError as error:
        raise InputError(f"{Path(target).name}: {error.strerror}: the JSON result cannot be written{done}") from None


def _check_json(target: Path, out: Path) -> None:
    """Told before the work; a file among the output's would keep --force from replacing it."""
    from sccg_runtime.errors import InputError

    folder = Path(os.path.realpath(target)).parent
    if Path(os.path.realpath(out)) in (folder, *folder.parents):
        raise InputError(f"--json {target.name} lies in {out.name}, which holds images alone: name another folder")
    there = next(path for path in (folder, *folder.parents) if path.exists())  # what lacks below it is made
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"--json {target.name} cannot be written: name a folder that takes files")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done}/{total} slices" + ("\n" if done == total else ""))
    sys.stderr.flush()


def _printable(text: str) -> str:
    """Bundles come from elsewhere: no control sequences of theirs on the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _say(text: str) -> None:
    sys.stderr.write(_printable(text) + "\n")


def _show(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"  # a text in memory has none
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def _terminated(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()
