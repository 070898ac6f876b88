"""Fake models live beside the tests; child processes find them because they get this process's ``sys.path``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
