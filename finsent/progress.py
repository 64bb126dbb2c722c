"""Progress on stderr: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

_LINE_FORMAT = (
    "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} left, "
    "{rate_fmt}{postfix}"
)


class _LineWriter:
    """A stream for tqdm that turns each drawing of the bar into one line of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last_line = stream, ""

    def write(self, text: str) -> None:
        """Write a drawing, unless it equals the last one."""
        line = text.strip()
        if line and line != self._last_line:
            self._stream.write(f"{line}\n")
            self._last_line = line

    def flush(self) -> None:
        """Flush the log."""
        self._stream.flush()


def progress_bar(
    title: str,
    unit: str,
    total: int | None,
    done: int = 0,
    *,
    terminal_seconds: float,
    log_seconds: float,
    delayed: bool = False,
) -> Any:
    """Return a tqdm bar with rate and remaining time.

    Args:
        unit: of `total`. B: bytes, which are shown as kB, MB and so on.
        total: None: unknown.
        done: units done before, e.g. by the run that this one resumes.
        terminal_seconds: interval between two drawings on a terminal.
        log_seconds: interval between two lines of a log.
        delayed: whether to show nothing during the first interval, and no last line in a log.
    """
    is_terminal = sys.stderr.isatty()
    interval = terminal_seconds if is_terminal else log_seconds
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=title,
        mininterval=interval,
        maxinterval=interval,
        file=sys.stderr if is_terminal else _LineWriter(sys.stderr),
        unit_scale=unit == "B",
        delay=interval if delayed else 0,
        leave=is_terminal or not delayed,
        position=0,
        dynamic_ncols=is_terminal,
        bar_format=None if is_terminal else _LINE_FORMAT,
    )


def format_duration(seconds: float) -> str:
    """Write seconds as minutes and seconds, or as hours, minutes and seconds."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds_left:02}"
    return f"{minutes}:{seconds_left:02}"
