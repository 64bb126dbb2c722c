"""Closed, typed settings: YAML files, then `key=value` overrides, checked by Pydantic.

A component's section stands beside the component (`finsent/*/config.py`); `finsent/settings.py`
puts them together. Defaults live in those types and nowhere else.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from finsent.errors import ConfigError


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take `true` for 1.
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and bool not in _kinds(field) and int in _kinds(field):
            raise PydanticCustomError("int_type", "Input should be a valid integer")
        return value


T = TypeVar("T", bound=Section)


def setting(default: Any, meaning: str, *, unit: str = "", **constraints: Any) -> Any:
    """A field with its one sentence of meaning and its unit, both shown by `--help`."""
    extra: dict[str, Any] = {"unit": unit}
    if callable(default):
        return Field(
            default_factory=default, description=meaning, json_schema_extra=extra, **constraints
        )
    return Field(default=default, description=meaning, json_schema_extra=extra, **constraints)


def local_dir(value: str | None) -> str | None:
    """Field validator: a directory's path, not a URI."""
    if value is not None and "://" in value:
        raise ValueError(
            f"{value!r} is a URI, which is not supported; write a directory, on several machines "
            "a mount they share"
        )
    return value


def load(schema: type[T], files: Sequence[Path | str], overrides: Sequence[str]) -> T:
    """Merge YAML files from left to right, then `key=value` overrides, and check the result.

    Raises:
        ConfigError: a file is missing or not YAML, or a key or value is wrong. One line that names
            the field, the value and what to write instead.
    """
    fields = dict(_walk(schema))
    try:
        pieces = [_read_yaml(Path(file)) for file in files]
        pieces += [_read_override(override, fields) for override in overrides]
        merged: Any = OmegaConf.create({})
        for piece in pieces:
            merged = _merge(merged, piece, schema)
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}; mend the value") from None
    return check(schema, values)


def _merge(merged: Any, piece: Any, schema: type[T]) -> Any:
    try:
        return OmegaConf.merge(merged, piece)
    except TypeError:  # a section met a list: by itself the piece is wrong, too, and has a name
        check(schema, OmegaConf.to_container(piece))
        raise


def check(schema: type[T], values: Any) -> T:
    """Check plain values.

    Raises:
        ConfigError: a key or value is wrong; one line, as of `load`.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, schema)) from None


class _Dumper(yaml.SafeDumper):
    """Quotes what OmegaConf would read as something else than the string it is."""


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    escaped = value.replace("${", "\\${")
    plain = OmegaConf.create(f"x: {value}") if re.fullmatch(r"[\w.+-]+", value) else None
    style = '"' if plain is not None and not isinstance(plain.x, str) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=style)


_Dumper.add_representer(str, _quoted)


def to_yaml(config: Section, sections: Sequence[str] | None = None) -> str:
    """The resolved config, or some of its sections, as YAML that a job takes back unchanged."""
    values = config.model_dump(mode="json", include=set(sections) if sections else None)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")])
        hint = f"did you mean {str(path.parent / near[0])!r}?" if near else "check the path"
        raise ConfigError(f"config file {str(path)!r}: no such file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config file {str(path)!r}: cannot be read ({error}); name a YAML file in UTF-8"
        ) from None
    try:
        # OmegaConf turns a lone word into a section, and falls over a lone number.
        if not isinstance(yaml.safe_load(text), dict | None):
            raise ConfigError(
                f"config file {str(path)!r}: holds no mapping; write sections, e.g. 'train:' with "
                "keys"
            )
        if twice := duplicate_key(text):
            raise ConfigError(f"config file {str(path)!r}: {twice}; leave one of them out")
        return OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"config file {str(path)!r}: not valid YAML{where} ({error.problem}); mend that line"
        ) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"config file {str(path)!r}: not valid YAML ({problem})") from None


def duplicate_key(text: str) -> str:
    """Return which key a mapping of a YAML document has twice, and where; empty: none.

    Raises:
        yaml.YAMLError: the text is not valid YAML.
    """
    loader = yaml.SafeLoader(text)
    begun, done = set[int](), set[int]()  # an alias leads to its node again

    def walk(node: yaml.Node | None) -> str:
        if not isinstance(node, yaml.CollectionNode) or id(node) in done:
            return ""
        if id(node) in begun:
            raise yaml.constructor.ConstructorError(
                problem="an alias within what it stands for", problem_mark=node.start_mark
            )
        begun.add(id(node))
        found = look(node)
        done.add(id(node))
        return found

    def look(node: yaml.Node) -> str:
        if isinstance(node, yaml.SequenceNode):
            return next(filter(None, map(walk, node.value)), "")
        if not isinstance(node, yaml.MappingNode):
            return ""
        lines: dict[Any, int] = {}
        for key, value in node.value:
            # By its value: `yes` and `true` are one key.
            name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else id(key)
            line = key.start_mark.line + 1
            if name in lines:
                return f"duplicate key {key.value} at line {lines[name]} and line {line}"
            lines[name] = line
            if found := walk(value):
                return found
        return ""

    try:
        return walk(loader.get_single_node())
    finally:
        loader.dispose()


def _read_override(override: str, fields: dict[str, FieldInfo]) -> Any:
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"argument {override!r}: write key=value, e.g. train.epochs=2")
    try:
        if twice := duplicate_key(raw):
            raise ConfigError(f"argument {override!r}: {twice}; leave one of them out")
        parsed = OmegaConf.from_dotlist([override])
        field = fields.get(key)
        value = OmegaConf.select(parsed, key, throw_on_missing=False)
        if field and _wants_text(field) and (raw == "-" or isinstance(value, int | float)):
            # Where a text is asked for, an id such as 12345678e901 is no number, and - no list.
            OmegaConf.update(parsed, key, raw)
        return parsed
    except yaml.YAMLError:
        raise ConfigError(
            f"argument {override!r}: the value is not valid YAML; quote it, e.g. "
            f"{key}='[\"a.csv\"]'"
        ) from None


def _wants_text(field: FieldInfo) -> bool:
    return str in _kinds(field) and not _kinds(field) & {int, float, bool}


def _kinds(field: FieldInfo) -> set[Any]:
    return {field.annotation, *typing.get_args(field.annotation)}


# --- messages -----------------------------------------------------------------------------------


def describe(error: ValidationError, schema: type[Section]) -> str:
    """One line for a Pydantic error: the first problem in full, the others by name."""
    problems = error.errors(include_url=False)
    first = _describe_one(problems[0], schema)
    others = sorted({_key(p["loc"]) for p in problems[1:]} - {_key(problems[0]["loc"]), ""})
    return f"{first} (also wrong: {', '.join(others)})" if others else first


def _key(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the branch of a union ("int", "function-after") to the location; a user has
    # never written it.
    return ".".join(str(part) for part in loc if not (isinstance(part, str) and "[" in part))


def _describe_one(problem: ErrorDetails, schema: type[Section]) -> str:
    key, value, kind = _key(problem["loc"]), problem["input"], problem["type"]
    if kind == "missing":
        meaning = _meaning(key, schema) or _meaning(key.rpartition(".")[0], schema)
        return f"{key}: is missing; write it{', ' if meaning else ''}{meaning}"
    if kind == "extra_forbidden":
        return _describe_unknown(key, schema)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":  # our own rules: they name the fields and the remedy themselves
        return f"{key}: {message}" if key else message
    if kind == "model_type" or kind == "model_attributes_type":
        return f"{key}={value!r}: is a section; write its keys, e.g. {key}.NAME=VALUE"
    field = dict(_walk(schema)).get(_pattern(key))
    required = field is None or field.is_required()
    default = "" if field is None or required else f" (default {_default(field)})"
    if field is not None and "literal" in kind and (also := _mapping(field.annotation)):
        default += f"; or a mapping with {', '.join(also.model_fields)}"
    if kind == "list_type" and isinstance(value, str):
        default += f"; write {key}='[\"{value}\"]'"
    return f"{key}={value!r}: {message[0].lower()}{message[1:]}{default}"


def _pattern(key: str) -> str:
    """The name that `_walk` has for a key: `sources.1.uri` is `sources[].uri`."""
    return re.sub(r"\.\d+(?=\.|$)", "[]", key)


def _meaning(key: str, schema: type[Section]) -> str:
    field = dict(_walk(schema)).get(_pattern(key))
    return field.description or "" if field else ""


def _describe_unknown(key: str, schema: type[Section]) -> str:
    known = [name for name, _ in _walk(schema)]
    sections = sorted({name.rpartition(".")[0] for name in known} - {""})
    shown, key = key, _pattern(key)
    parent, _, leaf = key.rpartition(".")
    near = [name for name in known if name.rpartition(".")[2] == leaf]  # right, but elsewhere
    near += difflib.get_close_matches(key, [*known, *sections], n=3, cutoff=0.6)
    near = [name for name in near if name != parent]
    hint = f"did you mean '{near[0]}'?" if near else f"sections are {', '.join(sections)}"
    return f"{shown}: unknown key; {hint} (--help lists every key)"


def _walk(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All leaf settings as dotted names, in the order in which they are declared.

    The keys of a list's items follow the list, as `sources[].uri`.
    """
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field
            if (item := _item(field.annotation)) is not None:
                yield from _walk(item, f"{prefix}{name}[].")


def _item(annotation: Any) -> type[Section] | None:
    """The section that a list holds, or None."""
    if typing.get_origin(annotation) is not list:
        return None
    [item] = typing.get_args(annotation)
    item = typing.get_args(item)[0] if typing.get_origin(item) is Annotated else item
    return item if isinstance(item, type) and issubclass(item, Section) else None


# --- help ---------------------------------------------------------------------------------------


def help_lines(schema: type[Section], sections: Sequence[str]) -> Iterator[str]:
    """`key  type  [unit]  default  meaning` for every setting of the named sections.

    The keys of a list's items stand under the first list that holds such items.
    """
    first: dict[type[Section], str] = {}
    for key, field in _walk(schema):
        if key.split(".")[0] not in sections:
            continue
        owner = key.partition("[]")[0]
        if owner != key and owner not in first.values():
            continue
        if (item := _item(field.annotation)) is not None:
            first.setdefault(item, key)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = f", {extra['unit']}" if extra.get("unit") else ""
        limits = _limits(field)
        yield f"  {key}" + ("" if field.is_required() else f"={_default(field)}")
        yield f"      {_type_name(field.annotation)}{unit}{limits}. {field.description}"


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return f", {' and '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    value = _plain(field.get_default(call_default_factory=True, validated_data={}))
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _mapping(annotation: Any) -> type[Section] | None:
    """The section that a union offers beside plain values, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_mapping(part) for part in typing.get_args(annotation))
    return next((part for part in found if part is not None), None)


def _plain(value: Any) -> Any:
    """A default as a user would write it."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(a) for a in args)
    if origin in (Union, types.UnionType):
        return "|".join("null" if a is type(None) else _type_name(a) for a in args)
    if origin is Annotated:
        return _type_name(args[0])
    if origin is list:
        return f"list of {_type_name(args[0])}"
    if origin is tuple:
        return f"[{', '.join(_type_name(a) for a in args)}]"
    if origin is dict:
        return f"mapping of {_type_name(args[0])} to {_type_name(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))
