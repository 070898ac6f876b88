"""How the HTJ2K code streams of test_compressed.py were made; needs ojph_compress (Debian package openjph-tools).

python make_htj2k.py
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
OPTIONS = {
    "lossless": ["-reversible", "true", "-prog_order", "LRCP"],
    "lossless-rpcl": ["-reversible", "true", "-prog_order", "RPCL"],
    "lossy": ["-reversible", "false", "-qstep", "0.002", "-num_decomps", "2"],
}


def picture() -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """24 rows, 32 columns, 12 bits: a disc with a slope in it and noise."""
    y, x = np.mgrid[0:24, 0:32]
    inside = ((y - 12) / 10) ** 2 + ((x - 16) / 12) ** 2 < 1
    noise = np.random.default_rng(4).integers(0, 30, (24, 32))
    return np.where(inside, 1000 + 90 * x + noise, 0).astype(np.uint16)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "picture.pgm")
        source.write_bytes(b"P5\n32 24\n4095\n" + picture().astype(">u2").tobytes())
        for name, options in OPTIONS.items():
            command = ["ojph_compress", "-i", source, "-o", HERE / f"htj2k-{name}.j2c", *options]
            subprocess.run(command, check=True, capture_output=True)
