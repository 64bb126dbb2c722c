"""Progress on stderr."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(what: str, unit: str, total: int, done: int = 0, *, live: float, log: float) -> Any:
    """A bar with rate and time left.

    Args:
        done: of the total, before.
        live: seconds between two drawings on a terminal.
        log: the same in a log file, which wants few lines.
    """
    every = live if sys.stderr.isatty() else log
    return tqdm(
        total=total, initial=done, unit=unit, desc=what,
        mininterval=every, maxinterval=every, file=sys.stderr, dynamic_ncols=True,
    )  # fmt: skip
