"""Settings of the registry."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from finsent.config import Section, local_dir, setting
from finsent.references import LATEST

VERSION_ID = re.compile(r"[0-9a-f]{12}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def alias_problem(alias: str) -> str | None:
    """Return why a name cannot be an alias, with the remedy; None: it can."""
    if not _ALIAS.fullmatch(alias):
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
    force: bool = setting(
        False,
        "make it `champion` even if it is worse than the present one, or cannot be compared with "
        "it; recorded with the version and the alias",
    )
