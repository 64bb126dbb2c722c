"""Completions of a partly written `key=value`, for shells."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel

from finsent.config.keys import walk_fields


def complete_setting(
    schema: type[BaseModel], sections: Sequence[str], home: str, word: str
) -> list[str]:
    """Return what a word may become: `section.`, `section.key=` or `section.key=value`.

    Args:
        sections: that a job uses.
        home: the section whose keys may be written without its name; empty: none.
        word: what the user has written so far.
    """
    fields = {
        key: field
        for key, field in walk_fields(schema)
        if "[]" not in key and key.partition(".")[0] in sections
    }
    for key in [key for key in fields if home and key.startswith(f"{home}.")]:
        fields[key.removeprefix(f"{home}.")] = fields[key]
    written_key, equals, _ = word.partition("=")
    if equals:
        field = fields.get(written_key)
        values = [] if field is None else _choices(field.annotation)
        candidates = [f"{written_key}={value}" for value in values]
    elif "." in word:
        candidates = [f"{key}=" for key in fields]
    else:
        candidates = [f"{section}." for section in sections]
        candidates += [f"{key}=" for key in fields if "." not in key]
    return sorted({text for text in candidates if text.startswith(word)})


def _choices(annotation: Any) -> Iterator[str]:
    """Yield the values of a type that has few, as a user writes them."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is type(None):
        yield "null"
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin is Annotated:
        yield from _choices(arguments[0])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _choices(argument)
