"""One line for what Pydantic finds wrong with settings."""

from __future__ import annotations

import difflib

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finsent.config.keys import default_text, indexed_to_pattern, union_section, walk_fields


def describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """Return one line for an error: the first problem in full, the keys of the others."""
    problems = error.errors(include_url=False)
    first = _describe_problem(problems[0], schema)
    other_keys = sorted({_key(p["loc"]) for p in problems[1:]} - {_key(problems[0]["loc"]), ""})
    return f"{first} (also wrong: {', '.join(other_keys)})" if other_keys else first


def _key(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the branch of a union ("int", "function-after[...]") to the location, which is
    # no key that a user wrote.
    return ".".join(str(part) for part in loc if not (isinstance(part, str) and "[" in part))


def _describe_problem(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    key, value, kind = _key(problem["loc"]), problem["input"], problem["type"]
    if kind == "missing":
        meaning = _meaning(key, schema) or _meaning(key.rpartition(".")[0], schema)
        return f"{key}: is missing; write it{', ' if meaning else ''}{meaning}"
    if kind == "extra_forbidden":
        return _describe_unknown(key, schema)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":  # of our own validators, which name the fields and the remedy
        return f"{key}: {message}" if key else message
    if kind in ("model_type", "model_attributes_type"):
        return f"{key}={value!r}: is a section; write its keys, e.g. {key}.NAME=VALUE"
    hint = _default_hint(key, kind, schema)
    if kind == "list_type" and isinstance(value, str):
        hint += f"; write {key}='[\"{value}\"]'"
    return f"{key}={value!r}: {message[0].lower()}{message[1:]}{hint}"


def _default_hint(key: str, kind: str, schema: type[BaseModel]) -> str:
    field = dict(walk_fields(schema)).get(indexed_to_pattern(key))
    if field is None:
        return ""
    hint = "" if field.is_required() else f" (default {default_text(field)})"
    if "literal" in kind and (section := union_section(field.annotation)):
        hint += f"; or a mapping with {', '.join(section.model_fields)}"
    return hint


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
    hint = f"did you mean '{near[0]}'?" if near else f"sections are {', '.join(sections)}"
    return f"{written}: unknown key; {hint} (--help lists every key)"
