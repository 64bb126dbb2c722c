"""Reading and checking the search space of a config, and configurations of a space."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from finsent.errors import ConfigError
from finsent.settings import Settings
from tune.records import Params
from tune.space import SECTIONS, Parameter, Space, with_values

_FORMS = {
    "loguniform": "{loguniform: [LOW, HIGH]}",
    "uniform": "{uniform: [LOW, HIGH]}",
    "int": "{int: [LOW, HIGH]}",
    "quantized": "{quantized: [LOW, HIGH, STEP]}",
    "choice": "{choice: [A, B, ...]}",
}


def parse_space(space: Mapping[str, Any], settings: Settings) -> Space:
    """Read and check a search space.

    Args:
        space: by key: one of `_FORMS`, optionally with `when: {KEY: VALUE or [VALUES]}`.
        settings: the other settings; the bounds must be valid together with them.

    Raises:
        ConfigError: a key, form, bound or condition is wrong. One line that names it.
    """
    if not space:
        raise ConfigError("sweep.space: is empty. Write KEY: {loguniform: [LOW, HIGH]} or another.")
    parameters = [_parse_parameter(key, form) for key, form in space.items()]
    by_key = {parameter.key: parameter for parameter in parameters}
    for parameter in parameters:
        _check_condition(parameter, by_key)
    for parameter in parameters:
        ancestors = _ancestor_values(parameter, by_key)
        for value in parameter.boundary_values():
            _check_value(settings, parameter, {**ancestors, parameter.key: value})
    return Space(parameters, settings)


def check_configuration(space: Space, params: Mapping[str, Any], field: str) -> None:
    """Check that a configuration is complete and in a space.

    Raises:
        ConfigError: a value is outside the space, or missing.
    """
    prefix = f"{field}: {json.dumps(dict(params), default=str)}"
    expected = {p.key: p for p in space.parameters if p.varies(params)}
    if params.keys() != expected.keys():
        key = min(params.keys() ^ expected.keys())
        raise ConfigError(
            f"{prefix}: {key} is {'missing' if key in expected else 'not in sweep.space'}. Give "
            "each key of the space a value, and no other key."
        )
    for key, parameter in expected.items():
        if not parameter.contains(params[key]):
            raise ConfigError(
                f"{prefix}: {key}={params[key]!r} is outside sweep.space.{key}. Choose a value "
                "inside."
            )


def _parse_parameter(key: str, form: Any) -> Parameter:
    field = f"sweep.space.{key}"
    forms = ", ".join(_FORMS.values())
    if key.partition(".")[0] not in SECTIONS:
        raise ConfigError(
            f"{field}: a trial varies settings of {', '.join(SECTIONS)} only. Remove the key."
        )
    if key == "train.dataset":
        raise ConfigError(
            f"{field}: all trials train on one dataset version. Vary settings of data: each trial "
            "then makes its own version."
        )
    if not isinstance(form, Mapping):
        raise ConfigError(f"{field}={form!r}: is not a range. Write one of {forms}.")
    kinds = [name for name in form if name != "when"]
    if len(kinds) != 1 or kinds[0] not in _FORMS:
        raise ConfigError(f"{field}: is not a range. Write one of {forms}.")
    [kind] = kinds
    parent, parent_values = _parse_condition(field, form.get("when"))
    values = form[kind]
    if not isinstance(values, list | tuple):
        raise ConfigError(f"{field}.{kind}={values!r}: is not a list. Write {_FORMS[kind]}.")
    if kind == "choice":
        choices = _parse_choices(field, values)
        return Parameter(key, kind, choices=choices, parent=parent, parent_values=parent_values)
    low, high, step = _parse_range(field, kind, values)
    return Parameter(key, kind, low, high, step, parent=parent, parent_values=parent_values)


def _parse_choices(field: str, values: Sequence[Any]) -> tuple[Any, ...]:
    distinct = {json.dumps(value, sort_keys=True) for value in values}
    if len(distinct) < max(2, len(values)):
        raise ConfigError(
            f"{field}.choice={values!r}: has too few values, or one twice. Write two different "
            "values or more."
        )
    return tuple(values)


def _parse_range(field: str, kind: str, values: Sequence[Any]) -> tuple[float, float, float | None]:
    prefix = f"{field}.{kind}={list(values)!r}"
    count = 3 if kind == "quantized" else 2
    are_numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in values)
    if len(values) != count or not are_numbers or not all(map(math.isfinite, values)):
        raise ConfigError(f"{prefix}: is not such a range. Write {_FORMS[kind]} with numbers.")
    low, high = values[0], values[1]
    if low >= high:
        problem = "is empty" if low == high else "has its lower bound above the upper bound"
        raise ConfigError(f"{prefix}: {problem}. Write LOW below HIGH.")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{prefix}: a logarithmic range begins above 0. Raise LOW.")
    if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(f"{prefix}: has fractions. Write integers, or uniform.")
    if kind != "quantized":
        return low, high, None
    step = values[2]
    if not 0 < step <= high - low:
        raise ConfigError(f"{prefix}: STEP must be above 0 and at most HIGH - LOW. Change it.")
    # Up to the last complete step.
    return low, round(low + math.floor((high - low) / step + 1e-9) * step, 12), step


def _parse_condition(field: str, when: Any) -> tuple[str | None, tuple[Any, ...]]:
    if when is None:
        return None, ()
    if not isinstance(when, Mapping) or len(when) != 1:
        raise ConfigError(
            f"{field}.when={when!r}: is not a condition. Write {{KEY: VALUE}} or {{KEY: [VALUES]}}."
        )
    [(parent, values)] = when.items()
    return str(parent), tuple(values) if isinstance(values, list | tuple) else (values,)


def _check_condition(parameter: Parameter, by_key: Mapping[str, Parameter]) -> None:
    if parameter.parent is None:
        return
    field = f"sweep.space.{parameter.key}.when"
    parent = by_key.get(parameter.parent)
    if parent is None or parent.kind not in ("choice", "int"):
        raise ConfigError(
            f"{field}: {parameter.parent!r} must be in sweep.space as a choice or int. Add the key."
        )
    impossible = [value for value in parameter.parent_values if not parent.contains(value)]
    if impossible or not parameter.parent_values:
        raise ConfigError(
            f"{field}: {parameter.parent} is never {impossible or 'nothing'}. Name values of its "
            "range."
        )
    seen: set[str] = {parameter.key}
    ancestor: Parameter | None = parent
    while ancestor is not None:
        if ancestor.key in seen:
            raise ConfigError(f"{field}: depends on itself. Remove one of the conditions.")
        seen.add(ancestor.key)
        ancestor = by_key.get(ancestor.parent or "")


def _ancestor_values(parameter: Parameter, by_key: Mapping[str, Parameter]) -> Params:
    """Return values of the ancestors with which a parameter varies."""
    if parameter.parent is None:
        return {}
    parent = by_key[parameter.parent]
    return {**_ancestor_values(parent, by_key), parent.key: parameter.parent_values[0]}


def _check_value(settings: Settings, parameter: Parameter, params: Mapping[str, Any]) -> None:
    try:
        with_values(settings, params)
    except ConfigError as error:
        raise ConfigError(f"sweep.space.{parameter.key}: {error}") from None
