"""A coverage.py plugin that saves every second: Ray ends its workers without leave to save."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import coverage

SECONDS = 1.0


def coverage_init(_registry: Any, _options: Any) -> None:
    """Called by coverage.py in each process that it starts in."""
    if "default_worker.py" in " ".join(sys.orig_argv):
        threading.Thread(target=save_again_and_again, daemon=True, name="coverage").start()


def save_again_and_again() -> None:
    """Write what was covered so far."""
    while True:
        time.sleep(SECONDS)
        current = coverage.Coverage.current()
        if current is not None:
            current.save()
