"""Signs bundles with OpenSSF model-signing; :mod:`sccg_runtime.signature` says what a signature is and checks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sccg_runtime.bundle import read_bundle
from sccg_runtime.errors import InputError
from sccg_runtime.files import replacing
from sccg_runtime.signature import InMemory, import_model_signing, signature_path


def sign_bundle(bundle: Path, private_key: Path, ask_password: Callable[[], str]) -> Path:
    """Write the signature of a bundle beside it, in the place of an earlier one; gives its path.

    Parameters
    ----------
    bundle
        A sound ``.sccg`` file: what is signed are the very bytes that were read and checked.
    private_key
        PEM file with a private key of curve P-256, P-384 or P-521.
    ask_password
        Called if the key is encrypted.

    Raises
    ------
    BundleError
        The file is no bundle, or damaged.
    InputError
        The key cannot be read, is none of these, or the password is wrong.
    MissingDependencyError
        model-signing is not installed.
    """
    signer = _signer(private_key, ask_password)
    read: list[bytes] = []
    read_bundle(bundle, read.append)
    signature = signature_path(bundle)
    with replacing(signature) as temporary:
        signer.set_hashing_config(InMemory(read[0])).sign(bundle, temporary)
    return signature


def _signer(private_key: Path, ask_password: Callable[[], str]) -> Any:
    config = import_model_signing().signing.Config()
    from cryptography.exceptions import UnsupportedAlgorithm  # model-signing stands on it

    try:
        try:
            return config.use_elliptic_key_signer(private_key=private_key)
        except TypeError:  # the key is encrypted; model-signing hands the password on as it is, and bytes are wanted
            password = ask_password().encode()
        try:
            return config.use_elliptic_key_signer(private_key=private_key, password=password)
        except ValueError:
            raise InputError(f"{private_key.name} does not open with this password") from None
    except OSError as error:
        raise InputError(f"{private_key.name}: {error.strerror}") from None
    except (AttributeError, TypeError, ValueError, UnsupportedAlgorithm):  # another kind of key or curve, a public key
        raise InputError(f"{private_key.name} is no private key in PEM form of curve P-256, P-384 or P-521") from None
