"""One ``.sccg`` file: a contract, an engine, golden slices and drift figures, read in memory and checked.

A bundle is a zip with stored (not compressed) members in this order. Nothing of it is ever unpacked to disk.

===============  =====================================================================================
member           content
===============  =====================================================================================
contract.json    :class:`sccg_runtime.contract.Contract`; holds the SHA-256 of every other member
model            by target: ``model.xml`` + ``model.bin``, ``model.onnx`` or ``model.engine``
golden.npz       ``inputs``, ``fp32_outputs``, ``engine_outputs``, each (K, 1, H, W) float32 in [-1, 1]
drift.json       what compression changed, as METRICS defines it
===============  =====================================================================================
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sccg_runtime.contract import Contract, Target
from sccg_runtime.errors import BundleError
from sccg_runtime.files import sha256
from sccg_runtime.intensity import FloatArray
from sccg_runtime.signature import verifier

if TYPE_CHECKING:
    from sccg_runtime.selftest import SelfTest

CONTRACT_MEMBER = "contract.json"
GOLDEN_MEMBER = "golden.npz"
DRIFT_MEMBER = "drift.json"
BUNDLE_MODEL_MEMBERS: Mapping[Target, tuple[str, ...]] = MappingProxyType(
    {
        "openvino": ("model.xml", "model.bin"),
        "ort": ("model.onnx",),
        "tensorrt-rtx": ("model.engine",),
        "tensorrt": ("model.engine",),
    }
)
GOLDEN_ARRAYS = ("inputs", "fp32_outputs", "engine_outputs")
MAX_BYTES = 512 * 1024**2
MAX_CONTRACT_BYTES = 4 * 1024**2
MAX_GOLDEN_BYTES = 256 * 1024**2
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and whose members fit their hashes.

    Attributes
    ----------
    name
        Base name of the file.
    contract
        What the engine is, takes and gives.
    members
        Content of every member but the contract, by name.
    sha256
        SHA-256 of the whole file, 64 hexadecimal digits.
    """

    name: str
    contract: Contract
    members: Mapping[str, bytes] = field(repr=False)
    sha256: str

    def selftest(self, *, threads: int | None = None) -> SelfTest:
        """Run the golden slices on this machine and compare; a failure is returned, not raised.

        Parameters
        ----------
        threads
            Threads for one slice; None: physical cores.

        Returns
        -------
        SelfTest
            ``passed`` and the figures in dB; its ``require()`` raises where it failed.

        Raises
        ------
        BundleError
            The golden slices cannot be read or the engine cannot be loaded.
        MissingDependencyError
            The engine's package, or a CPU feature that the precision needs, is not here; or the target needs a GPU.

        Example
        -------
        >>> load("balanced.sccg").selftest().passed
        True
        """
        from sccg_runtime.selftest import selftest

        return selftest(self, threads=threads)


@dataclass(frozen=True, slots=True)
class Golden:
    """A few slices with known answers, each array (K, 1, H, W) float32 in [-1, 1].

    Attributes
    ----------
    inputs
        What goes in.
    fp32_outputs
        What the uncompressed network made of it.
    engine_outputs
        What this engine made of it where it was exported.
    """

    inputs: FloatArray
    fp32_outputs: FloatArray
    engine_outputs: FloatArray


def load(path: Path | str, *, public_key: Path | str | None = None) -> Bundle:
    """Read a ``.sccg`` file into memory and check every part of it against its SHA-256.

    Parameters
    ----------
    path
        The file.
    public_key
        PEM file of an elliptic-curve public key: the file's signature ``FILE.sccg.sig`` must fit it, which is found
        out before anything in the bundle is used (needs the extra ``sign``). None: signatures are not looked at.

    Returns
    -------
    Bundle
        ``contract`` (:class:`sccg_runtime.Contract`) says what it takes and gives; ``sha256`` names it.

    Raises
    ------
    BundleError
        There is no such file, it is no bundle, damaged, too large, or of another format version.
    NotTrustedError
        The signature is missing, damaged, made with another key, or of other bytes.
    InputError
        ``public_key`` is no such key.
    MissingDependencyError
        A signature is to be checked and model-signing is not installed.

    Example
    -------
    >>> load("balanced.sccg").contract.input_intensity.modality
    'MR'
    """
    path = Path(path)
    return read_bundle(path, verifier(path, None if public_key is None else Path(public_key)))


def read_bundle(path: Path, verify: Callable[[bytes], None] | None = None) -> Bundle:
    """Read a ``.sccg`` file into memory and check every member against the contract.

    Parameters
    ----------
    path
        The file.
    verify
        Called with the file's very bytes before anything in them is used; raises if they are not to be trusted.

    Raises
    ------
    BundleError
        There is no such file, it is no bundle, damaged, too large, or of another format version.

    Example
    -------
    >>> bundle = read_bundle(Path("balanced-openvino-int8.sccg"))
    >>> bundle.contract.direction
    'mr2ct'
    """
    name = path.name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise BundleError(f"{name} is not a file: name the .sccg file itself")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror or 'cannot be read'}") from None
    if len(data) > MAX_BYTES:
        raise BundleError(f"{name} is larger than {MAX_BYTES // 1024**2} MiB: not a bundle")
    if verify is not None:
        verify(data)
    try:
        members = _members(name, data)
    except BundleError:
        raise
    except _ZIP_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{name} is not a bundle or is damaged ({reason}): copy or export it again") from None
    if CONTRACT_MEMBER not in members:
        raise BundleError(f"{name} has no {CONTRACT_MEMBER}: not a bundle")
    order = list(members)
    contract = Contract.from_json(members.pop(CONTRACT_MEMBER))
    _check_members(name, contract, members)
    if order != [CONTRACT_MEMBER, *_members_of(contract.target)]:
        raise BundleError(f"{name}: its members are in another order than export writes them in: it was changed")
    return Bundle(name=name, contract=contract, members=MappingProxyType(members), sha256=sha256(data))


def _members(name: str, data: bytes) -> dict[str, bytes]:
    """All members by name; what a bundle never holds is refused before it is read."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MAX_BYTES:
            raise BundleError(f"{name} declares more than {MAX_BYTES // 1024**2} MiB: not a bundle")
        for entry in entries:
            known = entry.filename if entry.filename.isascii() and entry.filename.isprintable() else "?"
            if any(part in entry.filename for part in ("/", "\\", ":")) or entry.filename in ("", ".", ".."):
                raise BundleError(f"{name}: member {known[:80]!r} is a path, not a name")
            if entry.filename in members:
                raise BundleError(f"{name}: member {known[:80]} is there twice")
            if entry.flag_bits & 0x41:
                raise BundleError(f"{name}: member {known[:80]} is encrypted")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise BundleError(f"{name}: member {known[:80]} is compressed; members of a bundle are stored")
            if entry.filename == CONTRACT_MEMBER and entry.file_size > MAX_CONTRACT_BYTES:
                raise BundleError(f"{name}: {CONTRACT_MEMBER} is larger than {MAX_CONTRACT_BYTES // 1024**2} MiB")
            with archive.open(entry) as file:
                content = file.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise BundleError(f"{name}: member {known[:80]} is cut off")
            members[entry.filename] = content
    return members


def _members_of(target: Target) -> tuple[str, ...]:
    """All members but the contract, in their order."""
    return (*BUNDLE_MODEL_MEMBERS[target], GOLDEN_MEMBER, DRIFT_MEMBER)


def _check_members(name: str, contract: Contract, members: Mapping[str, bytes]) -> None:
    expected = set(_members_of(contract.target))
    for problem, names in (
        ("lacks", expected - set(members)),
        ("holds unexpected", set(members) - expected),
        ("has no hash for", expected - set(contract.members)),
        ("has a hash for unexpected", set(contract.members) - expected),
    ):
        if names:
            listed = ", ".join(sorted(ascii(item)[1:-1][:80] for item in names)[:5])
            raise BundleError(f"{name} {problem} {listed} (target {contract.target})")
    for member, content in members.items():
        if sha256(content) != contract.members[member]:
            raise BundleError(f"{name}: {member} does not fit its SHA-256: the file was damaged or changed")


def read_golden(bundle: Bundle) -> Golden:
    """The golden slices of a bundle.

    Raises
    ------
    BundleError
        An array is missing, is no float32 (K, 1, H, W), is not finite, or the shapes differ.
    """
    data = bundle.members[GOLDEN_MEMBER]
    where = f"{bundle.name}: {GOLDEN_MEMBER}"
    arrays: dict[str, FloatArray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise BundleError(f"{where} is larger than {MAX_GOLDEN_BYTES // 1024**2} MiB")
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            for name in GOLDEN_ARRAYS:
                if name not in stored:
                    raise BundleError(f"{where} lacks {name}")
                arrays[name] = stored[name]
    except BundleError:
        raise
    except (*_ZIP_ERRORS, KeyError, TypeError, SyntaxError, MemoryError) as error:
        raise BundleError(f"{where} cannot be read ({type(error).__name__})") from None
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[1] != 1 or 0 in array.shape:
            raise BundleError(f"{where}: {name} is not float32 of shape (K, 1, H, W)")
        if array.shape != arrays["inputs"].shape or not np.isfinite(array).all():
            raise BundleError(f"{where}: {name} does not fit the inputs or is not finite")
    return Golden(**arrays)
