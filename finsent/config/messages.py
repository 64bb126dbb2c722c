"""One line for what Pydantic finds wrong with settings."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finsent.config.keys import default_text, indexed_to_pattern, union_section, walk_fields


def describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """Return one line for an error: the first problem in full, the keys of the others."""
    problems = error.errors(include_url=False)
    first_problem = _describe_problem(problems[0], schema)
    first_key = _key(problems[0]["loc"])
    keys = sorted({_key(problem["loc"]) for problem in problems[1:]} - {first_key, ""})
    # Keys below the first are those of a union's other branches.
    other_keys = [key for key in keys if not first_key or not key.startswith(f"{first_key}.")]
    return f"{first_problem} (also wrong: {', '.join(other_keys)})" if other_keys else first_problem


def _key(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the branch of a union ("int", "function-after[...]") to the location, which is
    # no key that a user wrote.
    return ".".join(str(key) for key in loc if not (isinstance(key, str) and "[" in key))


def _describe_problem(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    key, value, kind = _key(problem["loc"]), problem["input"], problem["type"]
    if kind == "missing":
        meaning = _meaning(key, schema) or _meaning(key.rpartition(".")[0], schema)
        return f"{key}: is missing. Write it{': ' if meaning else '.'}{meaning}"
    if kind == "extra_forbidden":
        return _describe_unknown(key, schema)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":  # of our own validators, which name the fields and the remedy
        return f"{key}: {message}" if key else message
    if kind in ("model_type", "model_attributes_type"):
        return f"{key}={_as_yaml(value)}: is a section. Write its keys, e.g. {key}.NAME=VALUE."
    remedy, form = _remedy(key, kind, value, schema), _form(key, kind, schema)
    rule = f"must be {form}" if form else _rule(message)
    return f"{key}={_as_yaml(value)}: {rule}.{' ' if remedy else ''}{remedy}"


def _as_yaml(value: Any) -> str:
    """Return a value as a user writes it."""
    is_word = value is None or isinstance(value, bool)
    return json.dumps(value) if is_word else repr(value)


def _rule(message: str) -> str:
    """Return what a value must be, from Pydantic's message."""
    rule = re.sub(r"^[A-Z]\w* should (be|have|match) ", r"must \1 ", message)
    return re.sub(r",? (unable to parse|after validation).*", "", rule).removesuffix(".")


def _form(key: str, kind: str, schema: type[BaseModel]) -> str:
    """Return the pattern of a setting in words; empty for other rules."""
    field = dict(walk_fields(schema)).get(indexed_to_pattern(key))
    extra = None if field is None else field.json_schema_extra
    if kind != "string_pattern_mismatch" or extra is None or callable(extra):
        return ""
    return str(extra.get("form", ""))


def _remedy(key: str, kind: str, value: Any, schema: type[BaseModel]) -> str:
    if kind == "list_type" and isinstance(value, str):
        return f"Write {key}='[\"{value}\"]'."
    field = dict(walk_fields(schema)).get(indexed_to_pattern(key))
    if field is None:
        return ""
    remedy = "" if field.is_required() else f"The default is {default_text(field)}."
    if "literal" in kind and (section := union_section(field.annotation)):
        remedy = f"Or write a mapping with {', '.join(section.model_fields)}. {remedy}"
    return remedy


def _meaning(key: str, schema: type[BaseModel]) -> str:
    field = dict(walk_fields(schema)).get(indexed_to_pattern(key))
    return field.description or "" if field else ""


def _describe_unknown(written: str, schema: type[BaseModel]) -> str:
    keys = [key for key, _ in walk_fields(schema)]
    sections = sorted({key.rpartition(".")[0] for key in keys} - {""})
    unknown = indexed_to_pattern(written)
    parent, _, leaf = unknown.rpartition(".")
    near = [key for key in keys if key.rpartition(".")[2] == leaf]  # a key of another section
    near += difflib.get_close_matches(unknown, [*keys, *sections], n=3, cutoff=0.6)
    near = [key for key in near if key != parent]
    hint = f"Did you mean '{near[0]}'?" if near else f"Sections are {', '.join(sections)}."
    return f"{written}: unknown key. {hint} --help lists every key."
