"""The base class of sections, and the declaration of a setting."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from finsent.config.keys import accepted_types
from finsent.config.messages import describe
from finsent.errors import ConfigError

# Context of serialization: values without passwords.
FOR_RECORDS: Final = {"for": "records"}


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_int(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic accepts `true` as 1.
        types = accepted_types(cls.model_fields[str(info.field_name)])
        if isinstance(value, bool) and bool not in types and int in types:
            raise PydanticCustomError("int_type", "Input should be a valid integer")
        return value

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values of some keys, validated as a new section is.

        Raises:
            ConfigError: a value is wrong, or contradicts another. One line, as of `load`.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            return type(self).model_validate({**values, **changes})
        except ValidationError as error:
            raise ConfigError(describe(error, type(self))) from None

    def for_records(self) -> dict[str, JsonValue]:
        """Return all values as JSON for a run's records, which others may read: no passwords."""
        return self.model_dump(mode="json", context=FOR_RECORDS)


def setting(
    default: Any, meaning: str, *, unit: str = "", form: str = "", **constraints: Any
) -> Any:
    """Declare a setting with its meaning and its unit, which `--help` prints.

    Args:
        form: the constraint `pattern` in words, for errors.
    """
    extra: dict[str, JsonValue] = {"unit": unit, "form": form}
    if callable(default):
        return Field(
            default_factory=default, description=meaning, json_schema_extra=extra, **constraints
        )
    return Field(default=default, description=meaning, json_schema_extra=extra, **constraints)


def local_dir(value: str | None) -> str | None:
    """Validate that a value is the path of a directory, not a URI."""
    if value is not None and "://" in value:
        raise ValueError(
            f"{value!r} is a URI, which is not supported. Write a directory, on several machines "
            "a mount that they share."
        )
    return value
