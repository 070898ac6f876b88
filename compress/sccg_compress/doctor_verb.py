"""``doctor``: what each target needs, what of it is here, and how to get the rest."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from sccg_compress.console import write_json
from sccg_compress.verb_options import JsonOption
from sccg_runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from sccg_export.requirements import Status


def doctor(json_out: JsonOption = None) -> None:
    """Show what each target needs, what of it is here, and how to get the rest."""
    from sccg_export.requirements import REQUIREMENTS, driver_cuda_version, examine
    from sccg_runtime.engine import cpu_capabilities

    statuses = [examine(target) for target in REQUIREMENTS]
    try:
        cpu = sorted(cpu_capabilities())
    except MissingDependencyError:
        cpu = None
    values = {
        "python": platform.python_version(),
        "cpu_capabilities": cpu,
        "nvidia_driver_cuda": driver_cuda_version(),
        "targets": [status.to_dict() for status in statuses],
    }
    write_json(json_out, values)
    if json_out != "-":
        _show(statuses, values)


def _show(statuses: list[Status], values: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    for name in ("target", "needs", "here", "precisions here", "missing, and how to get it"):
        table.add_column(name, overflow="fold")
    for status in statuses:
        here = [f"{name} {version}" for name, version in status.versions.items() if version is not None]
        usable = [name for name, reason in status.precisions.items() if reason is None]
        offered = ", ".join(usable) or "none"
        makers = [name for name, reason in status.quantizers.items() if reason is None]
        if makers:
            offered += f"\nint8 by {', '.join(makers)}"
        table.add_row(
            status.target, status.needs, "\n".join(here) or "nothing", offered, "\n".join(status.missing) or "nothing"
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    cpu = values["cpu_capabilities"]
    console.print(f"CPU, as OpenVINO sees it: {'not known, OpenVINO is missing' if cpu is None else ', '.join(cpu)}")
    driver = values["nvidia_driver_cuda"]
    console.print(f"NVIDIA driver: {'none, or no GPU' if driver is None else f'supports CUDA {driver}'}")
    reasons = [reason for one in statuses for reason in (*one.precisions.values(), *one.quantizers.values())]
    for reason in sorted({reason for reason in reasons if reason is not None}):
        console.print(f"not here: {reason}")
