"""Writing to stdout."""

from __future__ import annotations

import os
from typing import IO


def write_line(text: str, stdout: IO[str]) -> None:
    """Write text and a line end to stdout. A reader that has left, such as `head`, is no error."""
    try:
        print(text, file=stdout, flush=True)
    except BrokenPipeError:
        # Closing flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
