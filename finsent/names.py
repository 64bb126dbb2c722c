"""The rules for names: of aliases, of calibrations for domains, and of model versions."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from finsent.references import LATEST

VERSION_ID = re.compile(r"[0-9a-f]{12}")
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"  # of aliases and of calibrations for domains
_NAME = re.compile(NAME_PATTERN.strip("^$"))


def alias_problem(alias: str) -> str | None:
    """Return why a name cannot be an alias, with the remedy; None: it can."""
    if not _NAME.fullmatch(alias):
        return "not a valid alias. Write small letters, digits, - or _, e.g. champion."
    if VERSION_ID.fullmatch(alias):
        return "looks like a model version. Choose another alias, e.g. champion."
    if alias == LATEST:
        return "means the last finished training run. Choose another alias, e.g. champion."
    return None


def _validate_alias(alias: str) -> str:
    if problem := alias_problem(alias):
        raise PydanticCustomError("alias", "{problem}", {"problem": problem})
    return alias


Alias = Annotated[str, AfterValidator(_validate_alias)]


def _validate_calibration_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PydanticCustomError(
            "calibration_name",
            "not a valid name. Write small letters, digits, - or _, e.g. tweets.",
        )
    return name


CalibrationName = Annotated[str, AfterValidator(_validate_calibration_name)]


def _names_by_tag(value: Any) -> Any:
    # In a list each name is also the tag.
    return dict(zip(value, value, strict=True)) if isinstance(value, list) else value


# Name of a calibration for a domain by the tag of a source; None: the model's own calibration.
CalibrationsByTag = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], CalibrationName | None],
    BeforeValidator(_names_by_tag),
]
