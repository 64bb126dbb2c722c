"""Values of JSON records: nested keys, and labels as annotation tools nest them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeGuard

JsonObject: TypeAlias = dict[str, Any]  # as a user's file has it, so of no known shape

_MAX_DEPTH = 8  # of nested keys that are listed
_CHOICES = ("choices", "labels")  # Label Studio's keys of what an annotator chose


class SeveralLabelsError(ValueError):
    """A row has more than one label."""


def is_json_object(value: Any) -> TypeGuard[JsonObject]:
    """Return whether a parsed JSON value is an object."""
    return isinstance(value, dict)


def single_label(value: Any) -> Any:
    """Return the label of a list of one (doccano, Prodigy) or of Label Studio's object.

    Raises:
        SeveralLabelsError: the list has several labels.
    """
    if is_json_object(value) and len(value) == 1 and (key := next(iter(value))) in _CHOICES:
        return single_label(value[key])
    if not isinstance(value, list):
        return value
    distinct = [item for position, item in enumerate(value) if item not in value[:position]]
    if len(distinct) > 1:
        raise SeveralLabelsError
    return single_label(distinct[0]) if distinct else None


def nested_value(record: JsonObject, name: str) -> Any:
    """Return the value of a key, or of nested keys: `data.text`, `annotations.0.label`."""
    if name in record or "." not in name:
        return record.get(name)
    value: Any = record
    for key in name.split("."):
        if is_json_object(value):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def key_names(records: Iterable[JsonObject]) -> list[str]:
    """Return the keys of all records; nested keys, joined by dots, follow the top-level ones."""
    names = dict.fromkeys(name for record in records for name in _walk(record, "", 0))
    top = [name for name, is_nested in names if not is_nested]
    nested = [name for name, is_nested in names if is_nested]
    return list(dict.fromkeys([*top, *nested]))


def _walk(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, bool]]:
    """Yield the name of each key below a value, and whether the key is nested."""
    if depth > _MAX_DEPTH:
        return
    for key, inner in value.items() if is_json_object(value) else enumerate(value[:1]):
        name = f"{prefix}{key}"
        yield name, bool(prefix)
        if isinstance(inner, dict | list):
            yield from _walk(inner, f"{name}.", depth + 1)


def top_keys(records: Iterable[JsonObject]) -> list[str]:
    """Return the top-level keys of all records, in the order in which they come up."""
    keys: dict[str, None] = {}
    for record in records:
        keys |= dict.fromkeys(record)
    return list(keys)


def late_keys(records: Iterable[JsonObject], names: list[str]) -> list[str]:
    """Return those of the names that have a value in any record, however late."""
    missing = set(names)
    for record in records:
        missing -= {name for name in missing if nested_value(record, name) is not None}
        if not missing:
            break
    return [name for name in names if name not in missing]


def encodable(text: str | None) -> str | None:
    """Return a text with U+FFFD for half a surrogate pair: JSON can spell it, no encoding can."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
