"""Packs a bundle: one zip of stored members, the same bytes for the same content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from sccg_runtime.bundle import CONTRACT_MEMBER, GOLDEN_ARRAYS
from sccg_runtime.contract import Contract
from sccg_runtime.intensity import FloatArray

GOLDEN_SLICES = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


def pack(contract: Contract, members: Mapping[str, bytes]) -> bytes:
    """The file's bytes; ``contract.members`` must already hold the hashes of ``members``."""
    return _zip({CONTRACT_MEMBER: contract.to_json().encode(), **members})


def golden_bytes(size: tuple[int, int]) -> int:
    """What ``golden.npz`` of slices of ``size`` (rows, columns) takes."""
    return GOLDEN_SLICES * len(GOLDEN_ARRAYS) * 4 * size[0] * size[1]


def pack_golden(inputs: FloatArray, fp32_outputs: FloatArray, engine_outputs: FloatArray) -> bytes:
    """``golden.npz`` from three arrays (K, 1, H, W) float32."""
    arrays = {}
    for name, array in zip(GOLDEN_ARRAYS, (inputs, fp32_outputs, engine_outputs), strict=True):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
        arrays[f"{name}.npy"] = buffer.getvalue()
    return _zip(arrays)


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()
