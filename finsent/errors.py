"""Errors that a user can fix. Any other error is a bug and keeps its traceback."""

from __future__ import annotations

_MAX_CHARS = 300  # of a library's message within one of ours


def one_line(error: BaseException) -> str:
    """Return an error's message in one line for another message; its class where it has none."""
    return " ".join(str(error).split())[:_MAX_CHARS] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, where the other lines are of no use to users."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class UserError(Exception):
    """Bad config or bad input: one line that names the field, the value and the remedy.

    Jobs print it without a traceback and exit with code 2.
    """


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class InputError(UserError):
    """A file, dataset, model or directory that the user named cannot be used."""


class DivergenceError(InputError):
    """The loss of a training is not finite, or too large: its settings are the cause."""


class MemoryShortageError(InputError):
    """The device of a training has no memory for one row: its settings are the cause."""
