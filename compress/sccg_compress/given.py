"""Which options were typed."""

from __future__ import annotations

import typer

from sccg_runtime.errors import InputError


def refuse_beside_resume(context: typer.Context) -> None:
    """InputError if anything was typed that a resumed run would ignore."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    typed = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    beside = sorted(f"--{name.replace('_', '-')}" for name in typed - {"resume", "json_out"})
    if beside:
        raise InputError(f"--resume goes on as the run began: leave out {', '.join(beside)}")
