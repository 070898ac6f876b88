"""``python -m sccg_runtime``."""

import sys

from sccg_runtime.cli import main

sys.exit(main())
