"""For all packages but the runtime."""

from __future__ import annotations

import signal

# A parent that ignores Ctrl-C hands that down (nohup, background jobs); the tests that send it need the default back.
signal.signal(signal.SIGINT, signal.default_int_handler)
