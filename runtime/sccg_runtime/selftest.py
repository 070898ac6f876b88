"""Does this machine compute what the bundle's engine computed where it was exported?"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from sccg_runtime.bundle import Bundle, Golden, read_golden
from sccg_runtime.engine import Description, open_session
from sccg_runtime.errors import RefusedError
from sccg_runtime.intensity import FloatArray

MIN_TO_ENGINE_DB = 40.0
MAX_DROP_DB = 3.0
CAP_DB = 100.0
ROUNDING_DB = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """PSNR in dB on the u8 scale (R = 255), the worst of the golden slices, capped at 100.

    Attributes
    ----------
    slices
        Golden slices run.
    to_engine_db
        This machine against the engine where it was exported.
    to_fp32_db
        This machine against the uncompressed network.
    stored_to_fp32_db
        The engine where it was exported against the uncompressed network.
    passed
        Whether both limits hold.
    limits
        What was asked, in words.
    description
        What ran here.
    elapsed_ms
        Compiling and running, in ms.
    """

    slices: int
    to_engine_db: float
    to_fp32_db: float
    stored_to_fp32_db: float
    passed: bool
    limits: str
    description: Description
    elapsed_ms: float

    def require(self) -> None:
        """Raise RefusedError if the self-test failed."""
        if not self.passed:
            raise RefusedError(
                f"self-test failed: {self.to_engine_db:.1f} dB to the exported engine, {self.to_fp32_db:.1f} dB to "
                f"FP32 (needed: {self.limits}): this CPU computes something else; do not use this bundle here"
            )


def selftest(bundle: Bundle, *, threads: int | None = None) -> SelfTest:
    """What :meth:`sccg_runtime.bundle.Bundle.selftest` gives.

    Passes if the worst slice agrees with the exporting machine to 40 dB, and is not more than 3 dB further from the
    uncompressed network than the exporting machine was (agreement beyond 60 dB counts as 60). CPUs with other
    instruction sets round differently, and some saturate in INT8: this is what finds those.

    Raises
    ------
    BundleError
        The golden slices cannot be read or the engine cannot be loaded.
    """
    golden = read_golden(bundle)
    started = time.perf_counter()
    rows, columns = golden.inputs.shape[2:]
    session = open_session(bundle, size=(rows, columns), threads=threads)
    outputs = np.stack([session(image) for image in golden.inputs])
    elapsed_ms = (time.perf_counter() - started) * 1000
    here, fp32, stored = (
        worst_psnr_db(outputs, golden.engine_outputs),
        worst_psnr_db(outputs, golden.fp32_outputs),
        worst_psnr_db(golden.engine_outputs, golden.fp32_outputs),
    )
    least = least_db(golden)
    return SelfTest(
        slices=len(outputs),
        to_engine_db=here,
        to_fp32_db=fp32,
        stored_to_fp32_db=stored,
        passed=here >= least[0] and fp32 >= least[1],
        limits=f"at least {least[0]:g} dB to the exported engine, at least {least[1]:.1f} dB to FP32",
        description=session.description,
        elapsed_ms=elapsed_ms,
    )


def least_db(golden: Golden) -> tuple[float, float]:
    """(least PSNR to the engine where it was exported, least PSNR to the FP32 network) in dB that passes."""
    stored = worst_psnr_db(golden.engine_outputs, golden.fp32_outputs)
    # Above 60 dB (a root mean square of a quarter of one grey level) only rounding differs.
    return MIN_TO_ENGINE_DB, min(stored, ROUNDING_DB) - MAX_DROP_DB


def worst_psnr_db(outputs: FloatArray, references: FloatArray) -> float:
    """Lowest PSNR in dB over slices (K, 1, H, W) in [-1, 1] mapped to 0..255, R = 255, capped at 100."""
    errors = (np.clip(outputs, -1, 1).astype(np.float64) - np.clip(references, -1, 1)) * 127.5
    worst = float(np.mean(errors**2, axis=(1, 2, 3)).max())
    return CAP_DB if worst == 0 else min(CAP_DB, 10 * math.log10(255**2 / worst))
