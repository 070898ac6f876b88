"""``python -m sccg_runtime``."""

import sys

from sccg_runtime.cli import start

sys.exit(start())
