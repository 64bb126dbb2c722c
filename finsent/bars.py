"""Progress on stderr: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

_LINE = (
    "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} left, "
    "{rate_fmt}{postfix}"
)


class _Lines:
    """A log in place of tqdm's screen: each drawing becomes a line without control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def write(self, text: str) -> None:
        """Write a drawing, unless it equals the last one."""
        line = text.strip()
        if line and line != self._last:
            self._stream.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        """Flush the log."""
        self._stream.flush()


def bar(
    what: str,
    unit: str,
    total: int | None,
    done: int = 0,
    *,
    live: float,
    log: float,
    late: bool = False,
) -> Any:
    """A bar with rate and time left.

    Args:
        unit: B: bytes, which are shown as kB, MB and so on.
        total: None: unknown.
        done: of the total, before.
        live: seconds between two drawings on a terminal.
        log: the same in a log file, which wants few lines.
        late: show nothing before one such interval has passed, and no last line in a log.
    """
    screen = sys.stderr.isatty()
    every = live if screen else log
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=what,
        mininterval=every,
        maxinterval=every,
        file=sys.stderr if screen else _Lines(sys.stderr),
        unit_scale=unit == "B",
        delay=every if late else 0,
        leave=screen or not late,
        position=0,
        dynamic_ncols=screen,
        bar_format=None if screen else _LINE,
    )


def duration(seconds: float) -> str:
    """Write seconds as minutes and seconds, or as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
