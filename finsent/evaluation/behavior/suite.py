"""Cases of behavior, written by people who know the domain: YAML files and their closed schema.

The kinds are CheckList's (Ribeiro et al. 2020, https://arxiv.org/abs/2005.04118): a minimum
functionality test has one right label, an invariance test a label that must not change with the
text, a directional expectation test one that must change in a stated way.
"""

from __future__ import annotations

import difflib
import itertools
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from finsent.config import Section, duplicate_key, setting
from finsent.errors import InputError

Label = Literal["negative", "neutral", "positive"]
Direction = Literal["up", "down"]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Fillers = dict[str, list[Text]]

_MAX_CASES = 5000  # of one text; more combinations of fillers are probably a mistake
_TEXT = "text"  # placeholder of the case's text in a variant
_SPELLINGS: dict[str, Callable[[str], str]] = {
    "": str,
    "lower": str.lower,
    "upper": str.upper,
    "title": string.capwords,
}


@dataclass(frozen=True)
class Case:
    """One expectation about one text, or about a text and a variant of it."""

    texts: tuple[str, ...]  # the text, or the text and its variant
    labels: tuple[str, ...] = ()  # expected label of each text
    moves: Mapping[str, str] = field(default_factory=dict)  # label: up or down
    by: float = 0.0  # minimum change of a probability that moves
    # Without labels and moves, both texts must get the same label.


# --- schema -------------------------------------------------------------------------------------


class MftCase(Section):
    """A text with one right label."""

    text: Text = setting(..., "the text; {name} is replaced by each filler of that name")
    label: Label = setting(..., "label that the guidelines give the text")


class InvCase(Section):
    """A text whose label must not change."""

    text: Text = setting(..., "the text; {name} is replaced by each filler of that name")
    variants: list[Text] = setting(list, "texts that must get the same label; {text} is the text")


class DirCase(Section):
    """A text whose label or probabilities must change in a stated way."""

    text: Text = setting(..., "the text; {name} is replaced by each filler of that name")
    variants: list[Text] = setting(..., "changed texts; {text} is the text", min_length=1)
    label: Label | None = setting(None, "label of the text, where the label must change")
    becomes: Label | None = setting(None, "label of the variants, where the label must change")
    moves: dict[Label, Direction] = setting(
        dict, "labels whose probability must move, e.g. {positive: down}"
    )
    by: float = setting(0.1, "minimum change of a probability that moves", gt=0, le=1)

    @model_validator(mode="after")
    def _one_expectation(self) -> DirCase:
        both = self.label is not None and self.becomes is not None
        either = self.label is not None or self.becomes is not None
        if either != both or both == bool(self.moves):
            raise ValueError("write either label and becomes, or moves")
        if both and self.label == self.becomes:
            raise ValueError(f"becomes={self.becomes!r} is the label; write a kind: inv instead")
        return self


class Group(Section):
    """Cases that test one capability; their failure rate is reported together."""

    name: Text = setting(..., "the tested capability, in a few words")
    about: Text = setting(..., "why a model must have the capability, in a sentence")
    fillers: Fillers = setting(
        dict, "values of each {name}; fillers of a file apply to all its groups"
    )

    @model_validator(mode="after")
    def _fillers_have_values(self) -> Group:
        for name, values in self.fillers.items():
            if not name.isidentifier() or name == _TEXT:
                raise ValueError(f"fillers.{name}: not a name for a filler; write a word")
            if not values or len(set(values)) < len(values):
                raise ValueError(f"fillers.{name}={values}: write different values, at least one")
        return self

    def expand(self) -> list[Case]:
        """Return all cases in the order of the file, with fillers inserted.

        Raises:
            ValueError: a placeholder has no filler, or a case contradicts itself.
        """
        cases: list[Case] = []
        for index, case in enumerate(self.cases):  # type: ignore[attr-defined]
            try:
                cases += self._expand(case)
            except ValueError as error:
                raise ValueError(f"cases.{index}: {error}") from None
        return cases

    def _expand(self, case: Any) -> Iterator[Case]:
        raise NotImplementedError


class MftGroup(Group):
    """Minimum functionality: one right label per text."""

    kind: Literal["mft"] = setting("mft", "mft, inv or dir")
    cases: list[MftCase] = setting(..., "the cases", min_length=1)

    def _expand(self, case: MftCase) -> Iterator[Case]:
        for values in _products([case.text], self.fillers):
            yield Case((_fill(case.text, values),), (case.label,))


class InvGroup(Group):
    """Invariance: the same label for the text and for each variant."""

    kind: Literal["inv"] = setting("inv", "mft, inv or dir")
    swap: str | None = setting(
        None, "filler whose first value is in the text, and each other value in a variant"
    )
    variants: list[Text] = setting(
        list, "variants of every text of the group, e.g. {text:lower}; also upper and title"
    )
    cases: list[InvCase] = setting(..., "the cases", min_length=1)

    def _expand(self, case: InvCase) -> Iterator[Case]:
        variants = [*self.variants, *case.variants]
        fillers = dict(self.fillers)
        swapped: list[str] = []
        if self.swap is not None:
            if self.swap not in _names(case.text):
                raise ValueError(f"text={case.text!r}: has no {{{self.swap}}}, which swap names")
            if len(fillers.get(self.swap, [])) < 2:
                raise ValueError(f"swap={self.swap!r}: write at least two fillers of that name")
            first, *swapped = fillers[self.swap]
            fillers[self.swap] = [first]
        if not variants and not swapped:
            raise ValueError(f"text={case.text!r}: nothing changes; write variants or swap")
        for values in _products([case.text, *variants], fillers):
            text = _fill(case.text, values)
            for variant in variants:
                yield _pair(text, _fill(variant, {**values, _TEXT: text}))
            for other in swapped:
                yield _pair(text, _fill(case.text, {**values, str(self.swap): other}))


class DirGroup(Group):
    """Direction: the label or a probability changes as stated."""

    kind: Literal["dir"] = setting("dir", "mft, inv or dir")
    cases: list[DirCase] = setting(..., "the cases", min_length=1)

    def _expand(self, case: DirCase) -> Iterator[Case]:
        labels = (case.label, case.becomes) if case.label and case.becomes else ()
        for values in _products([case.text, *case.variants], self.fillers):
            text = _fill(case.text, values)
            for variant in case.variants:
                changed = _fill(variant, {**values, _TEXT: text})
                yield _pair(text, changed, labels, case.moves, case.by if case.moves else 0.0)


KINDS: dict[str, type[Group]] = {"mft": MftGroup, "inv": InvGroup, "dir": DirGroup}
Suite = list[MftGroup | InvGroup | DirGroup]


def _pair(text: str, changed: str, *expectation: Any) -> Case:
    if changed == text:
        raise ValueError(f"a variant of {text!r} is the same text; change it")
    return Case((text, changed), *expectation)


# --- templates ----------------------------------------------------------------------------------


def _parts(template: str) -> list[tuple[str, str | None, str]]:
    """Return literal text, name and spelling of each part of a template."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r}: {error}; write {{{{ for a brace") from None
    for _, name, spelling, conversion in parsed:
        if name is not None and (conversion or spelling not in _SPELLINGS):
            known = ", ".join(filter(None, _SPELLINGS))
            raise ValueError(f"{template!r}: after a colon write one of {known}")
    return [(literal, name, spelling or "") for literal, name, spelling, _ in parsed]


def _names(template: str) -> set[str]:
    return {name for _, name, _ in _parts(template) if name is not None}


def _products(templates: Sequence[str], fillers: Fillers) -> Iterator[dict[str, str]]:
    """Yield the combinations of fillers for the names in the templates (text, then variants)."""
    names = sorted(set().union(*map(_names, templates)) - ({_TEXT} - _names(templates[0])))
    size = 1
    for name in names:
        if name not in fillers:
            near = difflib.get_close_matches(name, fillers, n=1) or sorted(fillers)
            hint = f"did you mean {{{near[0]}}}, or " if near else ""
            raise ValueError(f"{{{name}}} has no fillers; {hint}write fillers.{name}")
        size *= len(fillers[name])
    if size > _MAX_CASES:
        raise ValueError(f"{size:,} combinations of fillers; write at most {_MAX_CASES:,}")
    for values in itertools.product(*(fillers[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return "".join(
        literal + ("" if name is None else _SPELLINGS[spelling](values[name]))
        for literal, name, spelling in _parts(template)
    )


# --- files --------------------------------------------------------------------------------------


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
            f"{setting_name}={str(directory)!r}: no *.yaml there; name a directory with suites, "
            "or shipped for the shipped suite"
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
            f"{file}: not valid YAML{where} ({error.problem}); correct that line"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read ({reason}); write YAML in UTF-8") from None
    if duplicate:
        raise InputError(f"{file}: {duplicate}; remove one of them")
    if not isinstance(content, dict) or not isinstance(content.get("groups"), list):
        raise InputError(f"{file}: has no list of groups; write 'groups:' with a list under it")
    if extra := content.keys() - {"groups", "fillers"}:
        raise InputError(f"{file}: {min(map(str, extra))}: unknown key; keys are fillers, groups")
    shared = content.get("fillers") or {}
    if not isinstance(shared, dict):
        raise InputError(f"{file}: fillers={shared!r}: not a mapping; write NAME: [VALUE, ...]")
    return [_group(raw, shared, index, file) for index, raw in enumerate(content["groups"])]


def _group(raw: Any, shared: Any, index: int, file: Path) -> Any:
    name = raw.get("name") if isinstance(raw, dict) else None
    where = f"{file}: group {name!r}" if isinstance(name, str) else f"{file}: groups.{index}"
    if not isinstance(raw, dict):
        raise InputError(f"{where}: not a mapping; write name, about, kind and cases")
    kind = KINDS.get(str(raw.get("kind")))
    if kind is None:
        known = ", ".join(KINDS)
        raise InputError(f"{where}: kind={raw.get('kind')!r}: write one of {known}")
    own = raw.get("fillers") or {}
    if isinstance(own, dict):
        raw = {**raw, "fillers": {**shared, **own}}
    try:
        group = kind.model_validate(raw)
        group.expand()
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key is also missing under its right name: report the cause.
        problem = min(problems, key=lambda error: error["type"] != "extra_forbidden")
        raise InputError(f"{where}: {_describe(problem, kind)}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    return group


def _describe(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    """Return a problem in one line: the key, the value and the remedy."""
    loc, kind = [part for part in problem["loc"] if part != "[key]"], problem["type"]
    key, fields = ".".join(map(str, loc)), _fields(schema, loc)
    leaf = next((str(part) for part in reversed(loc) if not isinstance(part, int)), "")
    meaning = fields[leaf].description if leaf in fields else None
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(leaf, fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(fields)}"
        return f"{key}: unknown key; {hint}"
    if kind == "missing":
        return f"{key}: is missing; add {leaf}: {meaning}"
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {message}" if key else message
    message = message[0].lower() + message[1:]
    quote = "; quote the text" if kind == "string_type" else ""
    return f"{key}={problem['input']!r}: {message}{quote}" + (f" ({meaning})" if meaning else "")


def _fields(schema: type[BaseModel], loc: Sequence[int | str]) -> dict[str, Any]:
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
            raise InputError(f"{where}: also in {names[group.name]}; rename or join the groups")
        names[group.name] = file
        for case in group.expand():
            key = (group.kind, case.texts)
            if key in seen:
                raise InputError(
                    f"{where}: {case.texts[-1]!r} is a case of {seen[key]!r} already; remove one"
                )
            seen[key] = group.name
            for text, label in zip(case.texts, case.labels, strict=False):
                known, other = labels.setdefault(text, (label, group.name))
                if known != label:
                    raise InputError(
                        f"{where}: {text!r} is {label} here and {known} in {other!r}; "
                        "choose one label"
                    )
