"""The last lines of a job's log: what the user sees."""

from __future__ import annotations

from pathlib import Path

LINES = 3


def last_lines(log: Path) -> tuple[str, ...]:
    """Return the last lines of a log that have text."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    return tuple([line for line in lines if line][-LINES:])
