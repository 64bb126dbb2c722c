"""A search space: its parameters, their values and conditions."""

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
from tune.records import ParameterRecord, Params

T = TypeVar("T", bound=Settings)

SECTIONS = ("train", "model", "data")  # sections that a trial may vary
_DIGITS = 12  # after the point: 0.15, not 0.15000000000000002


class Suggester(Protocol):
    """The methods of `optuna.Trial` that a space calls."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number between `low` and `high`."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return an integer between `low` and `high`, both included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True)
class Parameter:
    """A setting that varies."""

    key: str  # e.g. train.learning_rate
    kind: str  # loguniform, uniform, int, quantized or choice
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()
    parent: str | None = None  # key of the parameter on which this one depends
    parent_values: tuple[Any, ...] = ()  # values of the parent with which this parameter varies

    def suggest(self, trial: Suggester) -> Any:
        """Draw a value."""
        if self.kind == "choice":
            return decode(trial.suggest_categorical(self.key, [*map(encode, self.choices)]))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high))
        log = self.kind == "loguniform"
        value = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=log)
        return round(value, _DIGITS) if self.step else value

    def values(self) -> list[Any]:
        """Return all values.

        Raises:
            ConfigError: the parameter is continuous.
        """
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1))
        if self.step:
            return [round(self.low + i * self.step, _DIGITS) for i in range(int(self.count()))]
        raise ConfigError(
            f"sweep.space.{self.key}: {self.kind} is continuous, and sweep.search=grid tries every "
            "value. Write quantized or choice, or set another search."
        )

    def count(self) -> float:
        """Return the number of values; infinity for a continuous parameter."""
        if self.kind == "choice":
            return len(self.choices)
        if self.kind == "int":
            return int(self.high) - int(self.low) + 1
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1 if self.step else math.inf

    def boundary_values(self) -> tuple[Any, ...]:
        """Return values that must be valid for all to be: the bounds, and one between them."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return int(self.low), int(self.high)
        return self.low, self.high, self.low + (self.step or 0.382 * (self.high - self.low))

    def varies(self, params: Mapping[str, Any]) -> bool:
        """Return whether the parameter varies under the parent's value in `params`."""
        return self.parent is None or (
            self.parent in params and params[self.parent] in self.parent_values
        )

    def contains(self, value: Any) -> bool:
        """Return whether the parameter may have a value."""
        if self.kind == "choice":
            return any(
                isinstance(value, bool) == isinstance(choice, bool) and value == choice
                for choice in self.choices
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        if self.kind == "int":
            return float(value).is_integer()
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-6

    def record(self) -> ParameterRecord:
        """Return the parameter as `sweep.json` stores it."""
        has_choices = self.kind == "choice"
        return ParameterRecord(
            kind=self.kind,
            low=None if has_choices else self.low,
            high=None if has_choices else self.high,
            step=self.step or None,
            choices=list(self.choices) if has_choices else None,
            when=None if self.parent is None else {self.parent: list(self.parent_values)},
        )


def encode(value: Any) -> Any:
    """Return a choice as Optuna stores it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def decode(value: Any) -> Any:
    """Return the choice that `encode` has encoded."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


class Space:
    """All parameters, each behind the parameter on which it depends."""

    def __init__(self, parameters: Sequence[Parameter], settings: Settings) -> None:
        """
        Args:
            settings: settings that all configurations share.
        """
        self.parameters = _parents_first(parameters)
        self._settings = settings

    def sample(self, trial: Suggester) -> Params:
        """Draw a value for each parameter that varies."""
        params: Params = {}
        for parameter in self.parameters:
            if parameter.varies(params):
                params[parameter.key] = parameter.suggest(trial)
        return params

    def grid(self) -> Iterator[Params]:
        """Yield each combination once.

        Raises:
            ConfigError: a parameter is continuous.
        """
        seen = set()
        for values in itertools.product(*(parameter.values() for parameter in self.parameters)):
            params: Params = {}
            for parameter, value in zip(self.parameters, values, strict=True):
                if parameter.varies(params):
                    params[parameter.key] = value
            key = json.dumps(params, sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield params

    def identity(self, params: Mapping[str, Any]) -> str:
        """Return a string that is equal for configurations with the same settings of a training.

        A batch size of 16 equals 16.0, and two dropouts that differ by a rounding error are equal.
        """
        try:
            settings = with_values(self._settings, params)
            values = settings.model_dump(mode="json", include={*SECTIONS})
        except ConfigError:  # a trial with these settings fails
            values = dict(params)
        return json.dumps(_rounded(values), sort_keys=True, default=str)

    def configurations(self, max_count: int) -> dict[str, Params] | None:
        """Return all configurations by identity.

        Args:
            max_count: None is returned where the space has more, or a continuous parameter.
        """
        if math.prod(parameter.count() for parameter in self.parameters) > max_count:
            return None
        configurations: dict[str, Params] = {}
        for params in self.grid():
            configurations.setdefault(self.identity(params), params)
        return configurations

    def record(self) -> dict[str, ParameterRecord]:
        """Return the space as `sweep.json` stores it."""
        return {parameter.key: parameter.record() for parameter in self.parameters}


def with_values(settings: T, params: Mapping[str, Any]) -> T:
    """Return settings with a trial's values.

    Raises:
        ConfigError: a key is unknown, or the values are invalid together.
    """
    values = settings.model_dump(mode="json")
    for key, value in params.items():
        *sections, name = key.split(".")
        section: Any = values
        try:
            for section_name in sections:
                section = section[section_name]
            section[name] = value
        except (LookupError, TypeError):  # a section is missing, null or a value
            raise ConfigError(
                f"sweep.space.{key}: no such setting. See --help for every key."
            ) from None
    return check(type(settings), values)


def _rounded(value: Any) -> Any:
    """Return JSON whose floats have 12 significant digits, and are integers where they can be."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        short = float(f"{value:.12g}")
        return int(short) if short.is_integer() else short
    return value


def _parents_first(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters in their order, but each behind its parent."""
    ordered: list[Parameter] = []
    remaining = list(parameters)
    while remaining:
        keys = {parameter.key for parameter in ordered}
        ready = [p for p in remaining if p.parent is None or p.parent in keys]
        ordered += ready
        remaining = [p for p in remaining if p not in ready]
    return ordered
