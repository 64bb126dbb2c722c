"""The errors that a user can mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad config or bad input: one line that names the field, the value and the remedy.

    Jobs print it without a traceback and exit with code 2.
    """


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class InputError(UserError):
    """A file, data set, model or storage place that the user named cannot be used."""


class DivergenceError(InputError):
    """A training's loss is not a finite number, or too large: its settings are at fault."""


class MemoryShortageError(InputError):
    """A training's device has no memory for one row: its settings are at fault."""
