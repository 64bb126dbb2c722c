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
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, model_validator

from finsent.config import Section, setting

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
    variants: list[Text] = setting(
        list,
        "texts that must get the same label as the original; {text} inserts the original",
    )


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
            raise ValueError("needs one expectation. Write either label and becomes, or moves.")
        if both and self.label == self.becomes:
            raise ValueError(f"becomes={self.becomes!r}: is the label. Write a kind: inv instead.")
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
                raise ValueError(f"fillers.{name}: not a name for a filler. Write a word.")
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"fillers.{name}={values}: not different values. Write different values, at "
                    "least one."
                )
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
                raise ValueError(
                    f"text={case.text!r}: has no {{{self.swap}}}, which swap names. Write that "
                    "name."
                )
            if len(fillers.get(self.swap, [])) < 2:
                raise ValueError(
                    f"swap={self.swap!r}: has no other filler. Write at least two fillers of that "
                    "name."
                )
            first_filler, *swapped = fillers[self.swap]
            fillers[self.swap] = [first_filler]
        if not variants and not swapped:
            raise ValueError(f"text={case.text!r}: nothing changes. Write variants or swap.")
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
        raise ValueError(f"a variant of {text!r} is the same text. Change it.")
    return Case((text, changed), *expectation)


# --- templates ----------------------------------------------------------------------------------


def _parts(template: str) -> list[tuple[str, str | None, str]]:
    """Return literal text, name and spelling of each part of a template."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r}: {error}. Write {{{{ for a brace.") from None
    for _, name, spelling, conversion in parsed:
        if name is not None and (conversion or spelling not in _SPELLINGS):
            known = ", ".join(filter(None, _SPELLINGS))
            raise ValueError(f"{template!r}: unknown spelling. After a colon write one of {known}.")
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
            hint = f" (did you mean {{{near[0]}}}?)" if near else ""
            raise ValueError(f"{{{name}}}: has no fillers{hint}. Write fillers.{name}.")
        size *= len(fillers[name])
    if size > _MAX_CASES:
        raise ValueError(f"{size:,} combinations of fillers. Write at most {_MAX_CASES:,}.")
    for values in itertools.product(*(fillers[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return "".join(
        literal + ("" if name is None else _SPELLINGS[spelling](values[name]))
        for literal, name, spelling in _parts(template)
    )
