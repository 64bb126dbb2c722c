"""YAML files and `key=value` overrides as OmegaConf values."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from pydantic.fields import FieldInfo

from finsent.config.keys import accepted_types
from finsent.errors import ConfigError, one_line


def read_file(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigError: the file is missing, or is not YAML with a mapping of sections.
    """
    file = f"config file {str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")])
        hint = f"Did you mean {str(path.parent / near[0])!r}?" if near else "Check the path."
        raise ConfigError(f"{file}: no such file. {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}). Name a YAML file in UTF-8.") from None
    try:
        # OmegaConf turns a single word into a section, and fails on a single number.
        if not isinstance(yaml.safe_load(text), dict | None):
            raise ConfigError(
                f"{file}: contains no mapping. Write sections, e.g. 'train:' with keys."
            )
        if duplicate := duplicate_key(text):
            raise ConfigError(f"{file}: {duplicate}. Leave one of them out.")
        return OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{file}: not valid YAML{position} ({error.problem}). Correct that line."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML ({one_line(error)}). Correct it.") from None


def read_override(override: str, fields: dict[str, FieldInfo]) -> Any:
    """Read `key=value`.

    Args:
        fields: all fields by dotted key.

    Raises:
        ConfigError: the argument has no key or no `=`, or its value is not YAML.
    """
    key, equals, written = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"argument {override!r}: not a setting. Write key=value, e.g. train.epochs=2."
        )
    try:
        if duplicate := duplicate_key(written):
            raise ConfigError(f"argument {override!r}: {duplicate}. Leave one of them out.")
        parsed = OmegaConf.from_dotlist([override])
        field = fields.get(key)
        value = OmegaConf.select(parsed, key, throw_on_missing=False)
        if field and _is_text(field) and (written == "-" or isinstance(value, int | float)):
            # YAML reads an id such as 12345678e901 as a number, and `-` as a list.
            OmegaConf.update(parsed, key, written)
        return parsed
    except yaml.YAMLError:
        raise ConfigError(
            f"argument {override!r}: the value is not valid YAML. Quote it, e.g. "
            f"{key}='[\"a.csv\"]'."
        ) from None


def _is_text(field: FieldInfo) -> bool:
    types = accepted_types(field)
    return str in types and not types & {int, float, bool}


def duplicate_key(text: str) -> str:
    """Return which key a mapping of a YAML document has twice, and where; empty: none.

    Raises:
        yaml.YAMLError: the text is not valid YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        return _DuplicateFinder(loader).in_node(loader.get_single_node())
    finally:
        loader.dispose()


class _DuplicateFinder:
    """Searches the nodes of a document. An alias leads to the same node again."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._open, self._searched = set[int](), set[int]()  # ids of nodes

    def in_node(self, node: yaml.Node | None) -> str:
        """Return the first duplicate in a node; empty: none."""
        if not isinstance(node, yaml.CollectionNode) or id(node) in self._searched:
            return ""
        if id(node) in self._open:
            raise yaml.constructor.ConstructorError(
                problem="an alias within its own anchor", problem_mark=node.start_mark
            )
        self._open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            duplicate = next(filter(None, map(self.in_node, node.value)), "")
        else:
            duplicate = self._in_mapping(node)
        self._searched.add(id(node))
        return duplicate

    def _in_mapping(self, node: yaml.CollectionNode) -> str:
        lines: dict[Any, int] = {}
        for key, value in node.value:
            # By the value of the key: `yes` and `true` are the same key.
            is_scalar = isinstance(key, yaml.ScalarNode)
            name = self._loader.construct_object(key) if is_scalar else id(key)
            line = key.start_mark.line + 1
            if name in lines:
                return f"duplicate key {key.value} at line {lines[name]} and line {line}"
            lines[name] = line
            if duplicate := self.in_node(value):
                return duplicate
        return ""
