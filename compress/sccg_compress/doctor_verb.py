"""``doctor``: what each target needs and what of it is here."""

from __future__ import annotations

from sccg_compress.verb_options import JsonOption


def doctor(json_out: JsonOption = None) -> None:
    """Show what each target needs, what of it is here, and how to get the rest."""
    from sccg_compress.doctor_command import show_doctor

    show_doctor(json_out)
