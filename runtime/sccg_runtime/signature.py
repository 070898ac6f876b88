"""A bundle's signature: ``FILE.sccg.sig`` beside it, made by OpenSSF model-signing with an elliptic-curve key.

The file's content is signed, not its name: a bundle may be renamed or moved if its signature goes with it. The public
key is a file, brought by a way that is trusted; nothing is asked of any network. Needs the extra ``sign``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from sccg_runtime.errors import InputError, MissingDependencyError, NotTrustedError

MAX_SIGNATURE_BYTES = 1024**2


def signature_path(bundle: Path) -> Path:
    """Where the signature of a bundle lies: ``model.sccg`` -> ``model.sccg.sig``."""
    return bundle.parent / f"{bundle.name}.sig"


def import_model_signing() -> Any:
    """Import ``model_signing``.

    Raises
    ------
    MissingDependencyError
        It, or what it needs, is not installed.
    """
    try:
        import model_signing
    except ImportError:
        raise MissingDependencyError('signatures need model-signing: pip install "sccg-runtime[sign]"') from None
    return model_signing


class InMemory:
    """Bytes that were read, in the place of model-signing's hashing configuration, which would read the file again.

    Attributes
    ----------
    asked
        Whether the hash was asked for. Verifying asks for it after the signature itself was found to be good.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.asked = False

    def hash(self, model_path: Path, **_: Any) -> Any:
        """The manifest that model-signing itself makes of one file: its SHA-256 under the name ``.``."""
        from model_signing import manifest
        from model_signing._hashing.memory import SHA256

        self.asked = True
        kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        file = manifest.FileManifestItem(path=PurePosixPath("."), digest=SHA256(self._data).compute())
        return manifest.Manifest(model_path.name, [file], manifest.SerializationType.from_args(kind))

    def add_ignored_paths(self, **_: Any) -> None:
        """There is one file and nothing in it to leave out."""


def verifier(bundle: Path, public_key: Path | None) -> Callable[[bytes], None] | None:
    """What :func:`sccg_runtime.bundle.read_bundle` calls with a bundle's bytes; None where no key is given.

    Parameters
    ----------
    bundle
        The file; its signature is expected at :func:`signature_path`.
    public_key
        PEM file with a public key of curve P-256, P-384 or P-521.

    Raises
    ------
    InputError
        The key cannot be read, or is none of these. The returned function raises NotTrustedError where the signature
        is missing, damaged, made with another key, or of other bytes.
    MissingDependencyError
        model-signing is not installed.

    Example
    -------
    >>> bundle = read_bundle(path, verifier(path, Path("hospital.pub.pem")))
    """
    if public_key is None:
        return None
    signature, key = signature_path(bundle), public_key.name
    config = import_model_signing().verifying.Config()
    try:
        config.use_elliptic_key_verifier(public_key=public_key)
    except OSError as error:
        raise InputError(f"{key}: {error.strerror}") from None
    except Exception:  # of many kinds: no PEM, a private key, RSA, another curve
        raise InputError(f"{key} is no public key in PEM form of curve P-256, P-384 or P-521") from None

    def verify(data: bytes) -> None:
        if not signature.is_file():
            raise NotTrustedError(f"{bundle.name} is not signed: there is no {signature.name} beside it")
        if signature.stat().st_size > MAX_SIGNATURE_BYTES:
            raise NotTrustedError(f"{signature.name} is too large to be a signature")
        read = InMemory(data)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # where model-signing prints its warnings
                config.set_hashing_config(read).verify(bundle, signature)
        except Exception:  # of many kinds; whatever it is, the bundle is not trusted
            if read.asked:
                raise NotTrustedError(
                    f"{bundle.name} is not what {signature.name} signs: it was changed, or the signature is another's"
                ) from None
            raise NotTrustedError(f"{signature.name} does not fit {key}: damaged, or made with another key") from None

    return verify
