"""Settings of the registry."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from finsent.config import Section, local_dir, setting
from finsent.references import LATEST

VERSION_ID = re.compile(r"[0-9a-f]{12}")
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"  # of aliases and of calibrations for domains
_NAME = re.compile(NAME_PATTERN.strip("^$"))


def alias_problem(alias: str) -> str | None:
    """Return why a name cannot be an alias, with the remedy; None: it can."""
    if not _NAME.fullmatch(alias):
        return "write small letters, digits, - or _, e.g. champion"
    if VERSION_ID.fullmatch(alias):
        return "looks like a model version. Choose another alias, e.g. champion."
    if alias == LATEST:
        return "means the last finished training run. Choose another alias, e.g. champion."
    return None


def _checked(alias: str) -> str:
    if problem := alias_problem(alias):
        raise PydanticCustomError("alias", "{problem}", {"problem": problem})
    return alias


Alias = Annotated[str, AfterValidator(_checked)]


def _named_by_tags(value: Any) -> Any:
    # A list of names: tags of the same names.
    return dict(zip(value, value, strict=True)) if isinstance(value, list) else value


# Name of a calibration for a domain by the tag of a source; None: the model's own calibration.
CalibrationsByTag = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=100)],
        Annotated[str, Field(pattern=NAME_PATTERN)] | None,
    ],
    BeforeValidator(_named_by_tags),
]


class RegistryConfig(Section):
    """Where model versions live."""

    root: Annotated[str | None, AfterValidator(local_dir)] = setting(
        None, "directory of published model versions; null: storage.root/registry"
    )


class PublishConfig(Section):
    """What `ray_jobs.publish` publishes."""

    model: str = setting(
        "latest",
        "model to publish: `run:NAME`, a directory, or `latest` (the last finished training run)",
    )
    alias: Alias | None = setting("champion", "alias that is moved to the new version; null: none")
    license: str | None = setting(
        None,
        "license of the published model, for its card, e.g. apache-2.0; null: not stated",
        min_length=1,
    )
    margin: float = setting(
        0.06,
        "accuracy and macro-F1 that a model may lose in the champion's place: with 95 % confidence "
        "it must lose less",
        unit="fraction",
        gt=0,
        lt=1,
    )
    min_rows: int = setting(
        100,
        "test rows that neither model was trained or validated on, below which no model replaces a "
        "champion",
        unit="rows",
        ge=1,
    )
    force: bool = setting(
        False,
        "make it `champion` even if it is inferior to the present one, or the rows cannot tell; "
        "recorded with the version and the alias",
    )

    def weakened(self) -> list[str]:
        """Return the rules of the gate that are weaker than the defaults, in words."""
        default = PublishConfig()
        found = []
        if self.margin > default.margin:
            found.append(f"publish.margin={self.margin:g} (default: {default.margin:g})")
        if self.min_rows < default.min_rows:
            found.append(f"publish.min_rows={self.min_rows} (default: {default.min_rows})")
        return found
