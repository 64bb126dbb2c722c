"""Values and names of columns as YAML has them, and as files may spell them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

# YAML reads each of these words as true or false, so a setting cannot tell which one was written.
_TRUTHS = {"true": ("true", "yes", "on"), "false": ("false", "no", "off")}


def spelled(value: Any) -> str:
    """Return a YAML value as a file spells it, in lower case: `0`, `true`, `null`."""
    if value is None:
        return "null"
    name = str(value).strip().lower()
    return name.removesuffix(".0") if isinstance(value, float) else name


def spellings(value: str) -> tuple[str, ...]:
    """Return what a spelled value stands for: `true` also for `yes` and `on`."""
    return _TRUTHS.get(value, (value,))


def strings_as_keys(value: Any) -> Any:
    """Return a mapping of labels with texts as its keys.

    Raises:
        ValueError: two keys are one text and stand for two labels.
    """
    # YAML reads 0 and true as themselves; labels in a file are texts in any case, 1.0 or 1.
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, label in value.items():
        name = spelled(key)
        if found.setdefault(name, label) != label:
            raise ValueError(f"{name!r} stands for two labels; case does not matter, write it once")
    return found


def _spelled_list(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        return value
    return [spelled(item) for item in items]


def _conditions(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {str(_as_name(key)): _spelled_list(wanted) for key, wanted in value.items()}


def _as_name(value: Any) -> Any:
    """A column that is named by a number, as pandas names those of a frame without names."""
    if isinstance(value, bool):
        raise ValueError(
            f"{value}: YAML reads yes, no, on and off as true and false; write the column's name "
            'in quotes, e.g. "yes"'
        )
    return str(value) if isinstance(value, int) else value


Spellings = Annotated[list[str], BeforeValidator(_spelled_list)]
Conditions = Annotated[dict[str, list[str]], BeforeValidator(_conditions)]
ColumnName = Annotated[str, BeforeValidator(_as_name)]
AnyColumnName = Annotated[str | None, BeforeValidator(_as_name)]
