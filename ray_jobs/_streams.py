"""A job's streams: the result alone on stdout, and all else on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console

from finsent.signals import is_wanted

NOISY_LOGGERS = ("ray", "httpx", "huggingface_hub", "filelock")


def table_console() -> Console:
    """Return the console for tables: stderr, with texts printed literally, without markup."""
    return Console(file=sys.stderr, markup=False, emoji=False)


def say(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def stdout_for_result() -> Iterator[IO[str]]:
    """Yield stdout; output of libraries and child processes goes to stderr in the block."""
    sys.stdout.flush()
    stdout_copy = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(
            os.dup(stdout_copy), "w", encoding="utf-8", errors="backslashreplace"
        ) as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(stdout_copy, 1)
        os.close(stdout_copy)


def log_to_stderr() -> None:
    """Show log lines with their time on stderr; of noisy libraries from warnings on."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_wanted)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
