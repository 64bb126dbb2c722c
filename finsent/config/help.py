"""The list of settings that `--help` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from finsent.config.keys import default_text, item_section, type_text, walk_fields

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def help_lines(schema: type[BaseModel], sections: Sequence[str]) -> Iterator[str]:
    """Yield two lines per setting of the sections: `KEY=DEFAULT`, then type, unit and meaning.

    The keys of a list's items are listed once, under the first list that has such items.
    """
    lists: dict[type[BaseModel], str] = {}  # the first one, by the section of its items
    for key, field in walk_fields(schema):
        if key.split(".")[0] not in sections:
            continue
        owner = key.partition("[]")[0]
        if owner != key and owner not in lists.values():
            continue
        if (item := item_section(field.annotation)) is not None:
            lists.setdefault(item, key)
        extra = field.json_schema_extra
        unit = "" if extra is None or callable(extra) else extra.get("unit")
        value = type_text(field.annotation) + (f", {unit}" if unit else "") + _range(field)
        yield f"  {key}" + ("" if field.is_required() else f"={default_text(field)}")
        yield f"      {value}. {field.description}"


def _range(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in _SIGNS.items()
        if getattr(rule, name, None) is not None
    ]
    return f", {' and '.join(bounds)}" if bounds else ""
