"""What every page has: templates with escaping, pictures inside the file, and one script that its policy names."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_PLACE = "SCRIPT-HASH"


def render(folder: str, template: str, **values: Any) -> str:
    """Fill a template of this package; every text is escaped, and an unknown name is an error.

    Parameters
    ----------
    folder
        Of the templates, within the package, such as ``report/templates``.
    template
        Its name. It has at most one ``<script>`` without attributes, and ``{{ script_hash }}`` in its policy.
    values
        For the template.
    """
    environment = Environment(
        loader=PackageLoader("sccg_bench", folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = data_uri
    text = environment.get_template(template).render(script_hash=_PLACE, **values)
    return text.replace(_PLACE, script_hash(text), 1)


def script_hash(text: str) -> str:
    """``sha256-...`` of a page's own inline script: its security policy lets this run and nothing else."""
    found = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = hashlib.sha256(found[1].encode("utf-8") if found else b"").digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def data_uri(png: bytes) -> str:
    """A PNG as ``data:`` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
