"""The keys of a settings class: dotted names, fields, and the types of fields."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def walk_fields(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of each setting, in the order of declaration.

    The keys of a list's items follow the list, as `sources[].uri`.
    """
    for name, field in schema.model_fields.items():
        if is_section(field.annotation):
            yield from walk_fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field
            if (item := item_section(field.annotation)) is not None:
                yield from walk_fields(item, f"{prefix}{name}[].")


def is_section(annotation: Any) -> typing.TypeGuard[type[BaseModel]]:
    """Return whether a type is a class of settings."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def item_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a list's items have, or None."""
    if typing.get_origin(annotation) is not list:
        return None
    [item] = typing.get_args(annotation)
    item = typing.get_args(item)[0] if typing.get_origin(item) is Annotated else item
    return item if is_section(item) else None


def union_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a union accepts besides plain values, or None."""
    if is_section(annotation):
        return annotation
    sections = (union_section(member) for member in typing.get_args(annotation))
    return next((section for section in sections if section is not None), None)


def indexed_to_pattern(key: str) -> str:
    """Return the name that `walk_fields` has for a key: `sources.1.uri` is `sources[].uri`."""
    return re.sub(r"\.\d+(?=\.|$)", "[]", key)


def accepted_types(field: FieldInfo) -> set[Any]:
    """Return the type of a field, and the types of its union."""
    return {field.annotation, *typing.get_args(field.annotation)}


def default_text(field: FieldInfo) -> str:
    """Return a field's default as a user writes it in YAML."""
    value = _plain(field.get_default(call_default_factory=True, validated_data={}))
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def type_text(annotation: Any) -> str:
    """Return the name of a type for `--help`, e.g. `int|null`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(map(str, args))
    if origin in (Union, types.UnionType):
        return "|".join("null" if arg is type(None) else type_text(arg) for arg in args)
    if origin is Annotated:
        return type_text(args[0])
    if origin is list:
        return f"list of {type_text(args[0])}"
    if origin is tuple:
        return f"[{', '.join(map(type_text, args))}]"
    if origin is dict:
        return f"mapping of {type_text(args[0])} to {type_text(args[1])}"
    if is_section(annotation):
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))
