"""Settings of the registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from finsent.config import Section, local_dir, setting

ALIAS_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"


class RegistryConfig(Section):
    """Where model versions live."""

    root: Annotated[str | None, AfterValidator(local_dir)] = setting(
        None, "directory of published model versions; null: storage.root/registry"
    )


class PublishConfig(Section):
    """What `ray_jobs.publish` publishes."""

    model: str = setting(
        "latest", "run's or model's directory to publish; `latest`: the last finished training run"
    )
    alias: str | None = setting(
        "champion", "alias that is moved to the new version; null: none", pattern=ALIAS_PATTERN
    )
    force: bool = setting(
        False,
        "make it `champion` even if it is worse than the present one, or cannot be compared with "
        "it; recorded with the version and the alias",
    )
