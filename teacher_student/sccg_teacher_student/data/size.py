"""Slice sizes that a network can take: both sides must be multiples of its stride."""

from __future__ import annotations

from sccg_runtime.errors import InputError


def fitting_sizes(size: tuple[int, int], stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Next smaller and next larger (rows, columns) whose sides are multiples of ``stride``."""
    smaller = tuple(max(stride, side // stride * stride) for side in size)
    larger = tuple(-(-side // stride) * stride for side in size)
    return (smaller[0], smaller[1]), (larger[0], larger[1])


def check_stride(size: tuple[int, int], stride: int, what: str = "slice") -> None:
    """Refuse a size that the network's stride does not divide.

    Parameters
    ----------
    size
        (rows, columns) in pixels.
    stride
        Total downsampling of the network, in pixels.
    what
        What has that size, for the message: a file, or a case and slice.

    Raises
    ------
    InputError
        A side is no multiple of ``stride``; the message says which sizes would fit.

    Example
    -------
    >>> check_stride((256, 256), 4)
    """
    if stride < 1:
        raise InputError(f"stride {stride} is not a positive number")
    if min(size) >= 1 and not any(side % stride for side in size):
        return
    fits = " or ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys(fitting_sizes(size, stride)))
    raise InputError(f"{what}: {size[0]}x{size[1]} is no multiple of {stride}; {fits} would fit")
