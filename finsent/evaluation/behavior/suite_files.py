"""Read and check the YAML files of a behavior suite."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from finsent.config import Section, duplicate_key, setting
from finsent.errors import InputError
from finsent.evaluation.behavior.suite import KINDS, Fillers, Suite

RawGroup = dict[str, object]  # of a file, not checked


class SuiteFile(Section):
    """A file of a suite, whose groups are checked by their kinds."""

    groups: list[RawGroup] = setting(..., "the groups of the file")
    fillers: Fillers | None = setting(None, "fillers for all groups of the file")


def read_suite(folder: Path | None = None, setting_name: str = "evaluate.behavior") -> Suite:
    """Read and check every YAML file of a directory, in the order of their names.

    Args:
        folder: a directory with `*.yaml`; None: the shipped suite.
        setting_name: the setting that names the directory, for messages.

    Raises:
        InputError: there is no file, or a file is wrong. Names the file, the group and the remedy.
    """
    directory = folder or Path(__file__).parent
    files = sorted(directory.glob("*.yaml"))
    if not files:
        raise InputError(
            f"{setting_name}={str(directory)!r}: no *.yaml there. Name a directory with "
            "suites, or shipped for the shipped suite."
        )
    groups = [(file, group) for file in files for group in _read_file(file)]
    _check_unique(groups)
    return [group for _, group in groups]


def _read_file(file: Path) -> Suite:
    try:
        text = file.read_text(encoding="utf-8")
        content, duplicate = yaml.safe_load(text), duplicate_key(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(
            f"{file}: not valid YAML{where} ({error.problem}). Correct that line."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read ({reason}). Write YAML in UTF-8.") from None
    if duplicate:
        raise InputError(f"{file}: {duplicate}. Remove one of them.")
    try:
        suite_file = SuiteFile.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{file}: {_describe_file(error)}") from None
    shared = suite_file.fillers or {}
    return [_group(raw, shared, index, file) for index, raw in enumerate(suite_file.groups)]


def _group(raw: RawGroup, shared: Fillers, index: int, file: Path) -> Any:
    name = raw.get("name")
    where = f"{file}: group {name!r}" if isinstance(name, str) else f"{file}: groups.{index}"
    kind = KINDS.get(str(raw.get("kind")))
    if kind is None:
        known = ", ".join(KINDS)
        raise InputError(f"{where}: kind={raw.get('kind')!r}: unknown. Write one of {known}.")
    try:
        own = kind.model_validate({**raw, "fillers": raw.get("fillers") or {}})
        group = kind.model_validate({**raw, "fillers": {**shared, **own.fillers}})
        group.expand()
    except ValidationError as error:
        raise InputError(f"{where}: {_describe(_cause(error), kind)}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    return group


def _cause(error: ValidationError) -> ErrorDetails:
    """Return the first problem, where a misspelt key precedes the missing key that it causes."""
    problems = error.errors(include_url=False)
    return min(problems, key=lambda problem: problem["type"] != "extra_forbidden")


def _describe_file(error: ValidationError) -> str:
    """Return what is wrong with the content of a file, in one line."""
    problem = _cause(error)
    match problem["loc"]:
        case () | ("groups",):
            return "has no list of groups. Write 'groups:' with a list under it."
        case ("groups", int(index)):
            return f"groups.{index}: not a mapping. Write name, about, kind and cases."
        case ("fillers",):
            return f"fillers={problem['input']!r}: not a mapping. Write NAME: [VALUE, ...]."
    return _describe(problem, SuiteFile)


def _describe(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    """Return a problem in one line: the key, the value and the remedy."""
    loc, kind = [step for step in problem["loc"] if step != "[key]"], problem["type"]
    key, fields = ".".join(map(str, loc)), _fields(schema, loc)
    leaf = next((str(step) for step in reversed(loc) if not isinstance(step, int)), "")
    meaning = fields[leaf].description if leaf in fields else None
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(leaf, fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"Keys are {', '.join(fields)}."
        return f"{key}: unknown key. {hint[0].upper()}{hint[1:]}"
    if kind == "missing":
        return f"{key}: is missing. Add {leaf}: {meaning}."
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {message}" if key else message
    message = message[0].lower() + message[1:]
    quote = " Quote the text." if kind == "string_type" else ""
    note = f" ({meaning})" if meaning else ""
    return f"{key}={problem['input']!r}: {message}{note}.{quote}"


def _fields(schema: type[BaseModel], loc: Sequence[int | str]) -> dict[str, FieldInfo]:
    """Return the fields of the section of a problem: the group, or one of its cases."""
    if len(loc) > 2 and loc[0] == "cases":
        [case] = schema.model_fields["cases"].annotation.__args__  # type: ignore[union-attr]
        return dict(case.model_fields)
    return dict(schema.model_fields)


def _check_unique(groups: Sequence[tuple[Path, Any]]) -> None:
    """Refuse a repeated group name, a repeated case, and a text with two right labels."""
    names: dict[str, Path] = {}
    seen: dict[tuple[Any, ...], str] = {}
    labels: dict[str, tuple[str, str]] = {}
    for file, group in groups:
        where = f"{file}: group {group.name!r}"
        if group.name in names:
            raise InputError(f"{where}: also in {names[group.name]}. Rename or join the groups.")
        names[group.name] = file
        for case in group.expand():
            key = (group.kind, case.texts)
            if key in seen:
                raise InputError(
                    f"{where}: {case.texts[-1]!r} is a case of {seen[key]!r} already. Remove one."
                )
            seen[key] = group.name
            for text, label in zip(case.texts, case.labels, strict=False):
                known, other = labels.setdefault(text, (label, group.name))
                if known != label:
                    raise InputError(
                        f"{where}: {text!r} is {label} here and {known} in {other!r}. "
                        "Choose one label."
                    )
