"""The check that a run resumes only under the settings with which it began."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from finsent.errors import ConfigError

_MAX_VALUE = 80  # characters of a value in an error


def check_same(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    run_name: str,
    fixed: Collection[str] | None = None,
    mappings: Collection[str] = (),
) -> None:
    """Check that settings are those that a run has recorded.

    Args:
        recorded: settings by name, nested by section. Settings that `current` lacks are ignored:
            an older version of finsent may have written them.
        fixed: dotted names of the settings and sections that may not change; None: all.
        mappings: dotted names of settings whose keys the user chooses. A key that `current` lacks
            is a change there.

    Raises:
        ConfigError: a setting has changed.
    """
    for key, old, new in _differences(recorded, current, "", mappings):
        if fixed is None or any(_overlap(key, name) for name in fixed):
            raise ConfigError(
                f"run.name={run_name!r}: exists with {key}={_brief(old)}, now {key}={_brief(new)}. "
                "A run resumes only under its own settings. Choose another name, or restore them."
            )


def _differences(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    prefix: str,
    mappings: Collection[str],
) -> Iterator[tuple[str, Any, Any]]:
    has_users_keys = any(prefix.startswith(f"{name}.") for name in mappings)
    removed = [name for name in recorded if name not in current] if has_users_keys else []
    for name in [*current, *removed]:
        old, new = recorded.get(name), current.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}.", mappings)
        elif old != new:
            yield f"{prefix}{name}", old, new


def _overlap(key: str, other: str) -> bool:
    """Return whether one dotted name is the other, or is in its section."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."
