"""``sccg-compress``: distil, export, bench. Heavy imports wait until a command needs them."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from sccg_compress.bench_verb import bench, report
from sccg_compress.compare_verb import compare
from sccg_compress.demo_verb import demo, phantom
from sccg_compress.distill_verb import distill
from sccg_compress.doctor_verb import doctor
from sccg_compress.export_verb import export
from sccg_compress.overhead_verb import bench_overhead
from sccg_compress.plan_verb import plan
from sccg_compress.reader_study_verb import reader_study_app
from sccg_compress.sign_verb import sign, verify
from sccg_compress.study_verb import study
from sccg_compress.train_verb import train
from sccg_runtime.errors import SccgError, one_line

app = typer.Typer(
    name="sccg-compress",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distil, quantise and measure MR<->CT generators. Nothing leaves this machine.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sccg-compress {version('sccg-compress')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
) -> None:
    """Options before the command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    import logging

    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    if not debug:
        for name in ("nncf", "onnxscript", "torch.onnx", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)


app.command()(phantom)
app.command()(train)
app.command()(distill)
app.command()(export)
app.command()(bench)
app.command()(report)
app.command("bench-overhead")(bench_overhead)
app.command()(compare)
app.command()(sign)
app.command()(verify)
app.command()(doctor)
app.command()(demo)
app.command()(plan)
app.command()(study)
app.add_typer(reader_study_app, name="reader-study")


def main() -> None:
    """Run a command; one line and an exit code for what goes wrong (0 done, 2 bad input, 3 refused, 4 not trusted)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # Windows' own encodings do not know every letter of a table
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # typer gives the exit code of an Exit, and 130 after Ctrl-C
        code = app(standalone_mode=False, prog_name="sccg-compress")
        if isinstance(code, int) and code:
            sys.exit(code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except SccgError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:  # a full disk, a folder without rights
        if "--debug" in sys.argv:
            raise
        where, told = error.filename2 or error.filename, error.strerror or one_line(error)
        sys.exit(_fail(told if where is None else f"{where}: {told}", 2))
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's usage errors
        if usage is None:
            raise
        sys.exit(_fail(usage(), 2))


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
