"""Spellings: how files may write the values and column names that YAML settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

# YAML reads each of these words as true or false, so settings do not show which word was written.
_BOOLEAN_WORDS = {"true": ("true", "yes", "on"), "false": ("false", "no", "off")}


def spelled(value: Any) -> str:
    """Return a YAML value as a file spells it, in lower case: `0`, `true`, `null`."""
    if value is None:
        return "null"
    name = str(value).strip().lower()
    return name.removesuffix(".0") if isinstance(value, float) else name


def spellings(value: str) -> tuple[str, ...]:
    """Return the words that a spelled value matches: `true` also matches `yes` and `on`."""
    return _BOOLEAN_WORDS.get(value, (value,))


def strings_as_keys(value: Any) -> Any:
    """Return a mapping of labels with its keys as a file spells them.

    Raises:
        ValueError: two keys have one spelling and two labels.
    """
    # YAML reads 0 and true as a number and a boolean; labels in files are texts in any case.
    if not isinstance(value, Mapping):
        return value
    labels: dict[str, object] = {}
    for key, label in value.items():
        name = spelled(key)
        if labels.setdefault(name, label) != label:
            raise ValueError(
                f"{name!r} stands for two labels. Write it once: case does not matter."
            )
    return labels


def _spelled_list(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        return value
    return [spelled(item) for item in items]


def _as_name(value: Any) -> Any:
    """Return a column's name as a text, also a number: pandas numbers columns without names."""
    if isinstance(value, bool):
        raise ValueError(
            f"{value}: YAML reads yes, no, on and off as true and false. Write the column's name "
            'in quotes, e.g. "yes".'
        )
    return str(value) if isinstance(value, int) else value


Spellings = Annotated[list[str], BeforeValidator(_spelled_list)]
ColumnName = Annotated[str, BeforeValidator(_as_name)]
Conditions = dict[ColumnName, Spellings]
AnyColumnName = Annotated[str | None, BeforeValidator(_as_name)]
