"""Everything that sccg-compress and sccg-runtime raise on purpose.

SccgError                    exit code 2
├── InputError               exit code 2   a file, folder, option or image that cannot be used
│   ├── CheckpointError                    not a generator checkpoint, or not one that fits
│   ├── BundleError                        not a .sccg file, damaged, or of another version
│   └── SeriesError                        a DICOM series that must not be converted
├── MissingDependencyError   exit code 2   an optional package, driver or CPU feature is not here
├── RefusedError             exit code 3   a check said no: drift gate, self-test, strict input check
└── NotTrustedError          exit code 4   a signature is missing or wrong

The command lines print one line of the message and leave with ``exit_code``; a traceback only with ``--debug``.
"""

from __future__ import annotations


class SccgError(Exception):
    """Base of all errors raised on purpose. The message is one line: what is wrong, then what to do."""

    exit_code = 2


class InputError(SccgError):
    """A file, folder, option or image that cannot be used."""


class CheckpointError(InputError):
    """Not a generator checkpoint, or one that does not fit."""


class BundleError(InputError):
    """Not a ``.sccg`` file, damaged, or written in another format version."""


class SeriesError(InputError):
    """A DICOM series that must not be converted."""


class MissingDependencyError(SccgError):
    """An optional package, a driver or a CPU feature is not on this machine."""


class RefusedError(SccgError):
    """A check said no: drift gate, self-test or strict input check."""

    exit_code = 3


class NotTrustedError(SccgError):
    """A signature is missing or does not belong to the bundle."""

    exit_code = 4


def one_line(error: BaseException) -> str:
    """An error in one line of at most 300 characters; the type's name leads where it is not one of ours."""
    text = " ".join(str(error).split())
    if not isinstance(error, SccgError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
