"""A plugin of coverage.py that saves every second, because Ray kills its workers."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import coverage

SAVE_SECONDS = 1.0


def coverage_init(_registry: Any, _options: Any) -> None:
    """Start the thread that saves, in Ray's workers. coverage.py calls this in each process."""
    if "default_worker.py" in " ".join(sys.orig_argv):
        threading.Thread(target=save_repeatedly, daemon=True, name="coverage").start()


def save_repeatedly() -> None:
    """Save the coverage every `SAVE_SECONDS`."""
    while True:
        time.sleep(SAVE_SECONDS)
        current = coverage.Coverage.current()
        if current is not None:
            current.save()
