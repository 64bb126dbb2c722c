"""A search space as a config writes it: which settings vary, between what, and when."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from finsent.config import check
from finsent.errors import ConfigError
from finsent.settings import Settings

T = TypeVar("T", bound=Settings)

_SECTIONS = ("train", "model", "data")  # what a trial may vary
_FORMS = {
    "loguniform": "{loguniform: [LOW, HIGH]}",
    "uniform": "{uniform: [LOW, HIGH]}",
    "int": "{int: [LOW, HIGH]}",
    "quantized": "{quantized: [LOW, HIGH, STEP]}",
    "choice": "{choice: [A, B, ...]}",
}


class Suggester(Protocol):
    """What is used of an `optuna.Trial`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number of a range, both ends included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of some values."""


@dataclass(frozen=True)
class Parameter:
    """One setting that varies."""

    key: str  # e.g. train.learning_rate
    kind: str  # of `_FORMS`
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()
    parent: str | None = None  # it varies only where this one has one of `parent_values`
    parent_values: tuple[Any, ...] = ()

    def suggest(self, trial: Suggester) -> Any:
        """Draw a value."""
        if self.kind == "choice":
            return decoded(trial.suggest_categorical(self.key, [*map(encoded, self.choices)]))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high))
        log = self.kind == "loguniform"
        found = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=log)
        return round(found, 12) if self.step else found  # 0.15, not 0.15000000000000002

    def values(self) -> list[Any]:
        """All of them.

        Raises:
            ConfigError: they can't be counted.
        """
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1))
        if self.step:
            return [round(self.low + i * self.step, 12) for i in range(int(self.count()))]
        raise ConfigError(
            f"sweep.space.{self.key}: {self.kind} has no end of values, which sweep.search=grid "
            "cannot try; write quantized or choice, or another search"
        )

    def count(self) -> float:
        """How many values it has; infinity where they have no end."""
        if self.kind == "choice":
            return len(self.choices)
        if self.kind == "int":
            return int(self.high) - int(self.low) + 1
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1 if self.step else math.inf

    def tried(self) -> tuple[Any, ...]:
        """Values that must be right for all to be: the bounds, and one between them."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return int(self.low), int(self.high)
        return self.low, self.high, self.low + (self.step or 0.382 * (self.high - self.low))

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether it varies, given its parent's value."""
        return self.parent is None or (
            self.parent in params and params[self.parent] in self.parent_values
        )

    def body(self) -> dict[str, Any]:
        """It as JSON, for a sweep's record."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.kind == "choice":
            found["choices"] = list(self.choices)
        else:
            found |= {"low": self.low, "high": self.high}
            found |= {"step": self.step} if self.step else {}
        if self.parent is not None:
            found["when"] = {self.parent: list(self.parent_values)}
        return found


def encoded(value: Any) -> Any:
    """A choice as Optuna stores it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def decoded(value: Any) -> Any:
    """The reverse of `encoded`."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def _rounded(value: Any) -> Any:
    """JSON whose floats have 12 digits and are whole numbers where they can be."""
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        short = float(f"{value:.12g}")
        return int(short) if short.is_integer() else short
    return value


def inside(one: Parameter, value: Any) -> bool:
    """Whether a parameter may have a value."""
    if one.kind == "choice":
        return any(
            isinstance(value, bool) == isinstance(c, bool) and value == c for c in one.choices
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not one.low <= value <= one.high:
        return False
    if one.kind == "int":
        return float(value).is_integer()
    steps = (value - one.low) / one.step if one.step else 0.0
    return abs(steps - round(steps)) < 1e-6


class Space:
    """All parameters, each behind the one that it depends on."""

    def __init__(self, parameters: Sequence[Parameter], settings: Settings) -> None:
        """
        Args:
            settings: what all configurations share.
        """
        self.parameters = _sorted(parameters)
        self._settings = settings

    def sample(self, trial: Suggester) -> dict[str, Any]:
        """A value for each parameter that varies."""
        found: dict[str, Any] = {}
        for one in self.parameters:
            if one.holds(found):
                found[one.key] = one.suggest(trial)
        return found

    def grid(self) -> Iterator[dict[str, Any]]:
        """Each combination once.

        Raises:
            ConfigError: a parameter's values can't be counted.
        """
        seen = set()
        for values in itertools.product(*(one.values() for one in self.parameters)):
            found: dict[str, Any] = {}
            for one, value in zip(self.parameters, values, strict=True):
                if one.holds(found):
                    found[one.key] = value
            key = json.dumps(found, sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield found

    def identity(self, params: Mapping[str, Any]) -> str:
        """Return what two configurations have in common where training sees the same settings.

        So 16 and 16.0 are one batch size, and a rounding error is no other dropout.
        """
        try:
            seen = with_values(self._settings, params).model_dump(mode="json", include={*_SECTIONS})
        except ConfigError:  # a trial fails with them
            seen = dict(params)
        return json.dumps(_rounded(seen), sort_keys=True, default=str)

    def points(self, most: int) -> dict[str, dict[str, Any]] | None:
        """Return all configurations by identity.

        Args:
            most: None is returned where there are more, or where a parameter has no end of values.
        """
        found: dict[str, dict[str, Any]] = {}
        if math.prod(one.count() for one in self.parameters) > most:
            return None
        for params in self.grid():
            found.setdefault(self.identity(params), params)
        return found

    def body(self) -> dict[str, Any]:
        """It as JSON."""
        return {one.key: one.body() for one in self.parameters}


def parse(space: Mapping[str, Any], settings: Settings) -> Space:
    """Read and check a search space.

    Args:
        space: by key: one of `_FORMS`, maybe with `when: {KEY: VALUE or [VALUES]}`.
        settings: what the other settings are; bounds are tried in them.

    Raises:
        ConfigError: a key, form, bound or condition is wrong. One line that names it.
    """
    if not space:
        raise ConfigError("sweep.space: is empty; write KEY: {loguniform: [LOW, HIGH]} or so")
    parameters = [_parameter(key, form) for key, form in space.items()]
    by_key = {one.key: one for one in parameters}
    for one in parameters:
        _check_condition(one, by_key)
    for one in parameters:
        given = _given(one, by_key)
        for value in one.tried():
            _check_value(settings, one, {**given, one.key: value})
    return Space(parameters, settings)


def check_point(space: Space, params: Mapping[str, Any], field: str) -> None:
    """Check that a configuration lies in a space and is whole.

    Raises:
        ConfigError: it does not, or a value is missing.
    """
    said = f"{field}: {json.dumps(dict(params), default=str)}"
    wanted = {one.key: one for one in space.parameters if one.holds(params)}
    if params.keys() != wanted.keys():
        odd = sorted(params.keys() ^ wanted.keys())
        raise ConfigError(
            f"{said}: {odd[0]} is {'missing' if odd[0] in wanted else 'not in sweep.space'}; give "
            "each key of the space a value, and no other"
        )
    for key, one in wanted.items():
        if not inside(one, params[key]):
            raise ConfigError(f"{said}: {key}={params[key]!r} lies outside sweep.space.{key}")


def with_values(settings: T, params: Mapping[str, Any]) -> T:
    """Settings with a trial's values.

    Raises:
        ConfigError: together they are wrong.
    """
    values = settings.model_dump(mode="json")
    for key, value in params.items():
        *sections, name = key.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ConfigError(f"sweep.space.{key}: no such setting (--help lists every key)")
        place[name] = value
    return check(type(settings), values)


def _parameter(key: str, form: Any) -> Parameter:
    where = f"sweep.space.{key}"
    if key.partition(".")[0] not in _SECTIONS:
        raise ConfigError(f"{where}: a trial varies settings of {', '.join(_SECTIONS)} only")
    if key == "train.dataset":
        raise ConfigError(
            f"{where}: all trials train on one dataset version; vary settings of data, by which "
            "each trial makes its own"
        )
    if not isinstance(form, Mapping):
        raise ConfigError(f"{where}={form!r}: write one of {', '.join(_FORMS.values())}")
    kinds = [name for name in form if name != "when"]
    if len(kinds) != 1 or kinds[0] not in _FORMS:
        raise ConfigError(f"{where}: write one of {', '.join(_FORMS.values())}")
    [kind] = kinds
    parent, parent_values = _condition(where, form.get("when"))
    given = form[kind]
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{where}.{kind}={given!r}: write {_FORMS[kind]}")
    if kind == "choice":
        choices = tuple(given)
        if len({json.dumps(one, sort_keys=True) for one in choices}) < max(2, len(choices)):
            raise ConfigError(f"{where}.choice={given!r}: write two different values or more")
        return Parameter(key, kind, choices=choices, parent=parent, parent_values=parent_values)
    low, high, step = _range(where, kind, given)
    return Parameter(key, kind, low, high, step, parent=parent, parent_values=parent_values)


def _range(where: str, kind: str, given: Sequence[Any]) -> tuple[float, float, float | None]:
    said = f"{where}.{kind}={list(given)!r}"
    wanted = 3 if kind == "quantized" else 2
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in given)
    if len(given) != wanted or not numbers or not all(map(math.isfinite, given)):
        raise ConfigError(f"{said}: write {_FORMS[kind]} with numbers")
    low, high = given[0], given[1]
    if low >= high:
        problem = "is empty" if low == high else "has its lower bound above the upper one"
        raise ConfigError(f"{said}: {problem}; write LOW below HIGH")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{said}: a logarithmic range begins above 0")
    if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(f"{said}: write whole numbers, or uniform")
    step = given[2] if kind == "quantized" else None
    if step is None:
        return low, high, None
    if not 0 < step <= high - low:
        raise ConfigError(f"{said}: STEP must be above 0 and at most HIGH - LOW")
    # Up to the last whole step.
    return low, round(low + math.floor((high - low) / step + 1e-9) * step, 12), step


def _condition(where: str, when: Any) -> tuple[str | None, tuple[Any, ...]]:
    if when is None:
        return None, ()
    if not isinstance(when, Mapping) or len(when) != 1:
        raise ConfigError(f"{where}.when={when!r}: write {{KEY: VALUE}} or {{KEY: [VALUES]}}")
    [(parent, values)] = when.items()
    return str(parent), tuple(values) if isinstance(values, list | tuple) else (values,)


def _check_condition(one: Parameter, by_key: Mapping[str, Parameter]) -> None:
    if one.parent is None:
        return
    where = f"sweep.space.{one.key}.when"
    parent = by_key.get(one.parent)
    if parent is None or parent.kind not in ("choice", "int"):
        raise ConfigError(f"{where}: {one.parent!r} must be in sweep.space as a choice or int")
    foreign = [value for value in one.parent_values if not inside(parent, value)]
    if foreign or not one.parent_values:
        raise ConfigError(f"{where}: {one.parent} never is {foreign or 'nothing'}")
    seen: set[str] = {one.key}
    current: Parameter | None = parent
    while current is not None:
        if current.key in seen:
            raise ConfigError(f"{where}: depends on itself")
        seen.add(current.key)
        current = by_key.get(current.parent or "")


def _given(one: Parameter, by_key: Mapping[str, Parameter]) -> dict[str, Any]:
    """Values of those that a parameter depends on, with which it varies."""
    if one.parent is None:
        return {}
    parent = by_key[one.parent]
    return {**_given(parent, by_key), parent.key: one.parent_values[0]}


def _check_value(settings: Settings, one: Parameter, params: Mapping[str, Any]) -> None:
    try:
        with_values(settings, params)
    except ConfigError as error:
        raise ConfigError(f"sweep.space.{one.key}: {error}") from None


def _sorted(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Parents first; else as they were written."""
    found: list[Parameter] = []
    left = list(parameters)
    while left:
        ready = [one for one in left if one.parent is None or one.parent in {f.key for f in found}]
        found += ready
        left = [one for one in left if one not in ready]
    return found
