"""Write to stdout."""

from __future__ import annotations

import os
from typing import IO


def write_line(text: str, stdout: IO[str]) -> None:
    """Write text and a line end to stdout, also where its reader, such as `head`, has exited."""
    try:
        print(text, file=stdout, flush=True)
    except BrokenPipeError:
        # Python flushes stdout again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
