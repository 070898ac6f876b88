"""``sign`` and ``verify``: who made a bundle, and that nothing in it was changed since."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sccg_runtime.errors import InputError

BundleArgument = Annotated[Path, typer.Argument(help="The .sccg file.")]


def sign(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option("--key", help="Private elliptic-curve key, PEM; asks for its password.")],
) -> None:
    """Sign a bundle with a private key: BUNDLE.sig is written beside it (OpenSSF model-signing)."""
    from sccg_export.signer import sign_bundle

    def ask_password() -> str:
        try:
            return str(typer.prompt(f"password of {key}", hide_input=True, err=True))
        except typer.Abort:
            if sys.stdin.isatty():
                raise
            raise InputError(f"{key} has a password, and there is no terminal to ask for it") from None

    signature = sign_bundle(bundle, key, ask_password)
    typer.echo(f"{signature}: signed with {key}")


def verify(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option("--key", help="Public key of the signer, PEM.")],
) -> None:
    """Check that BUNDLE.sig fits the bundle and a public key; exit code 4 if not."""
    from sccg_runtime import load

    typer.echo(f"{bundle}: signed with the partner of {key}, sha256 {load(bundle, public_key=key).sha256}")
