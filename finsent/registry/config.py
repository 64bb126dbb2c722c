"""Settings of the registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from finsent.config import Section, setting
from finsent.names import Alias
from finsent.storage.config import storage_root


class RegistryConfig(Section):
    """Where model versions live."""

    root: Annotated[str | None, AfterValidator(storage_root)] = setting(
        None,
        "where published model versions are stored: a directory, or s3://, gs:// or az:// with "
        "bucket and prefix; null: storage.root/registry",
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
        "accuracy and macro-F1 that a model may lose when it replaces the champion: with 95 % "
        "confidence it must lose less",
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
        "publish the model as `champion` even if it is inferior to the current champion, or the "
        "rows are too few to tell; the version and the alias record this",
    )

    def weakened(self) -> list[str]:
        """Return the rules of the gate that are weaker than the defaults, in words."""
        default = PublishConfig()
        weaker_rules = []
        if self.margin > default.margin:
            weaker_rules.append(f"publish.margin={self.margin:g} (default: {default.margin:g})")
        if self.min_rows < default.min_rows:
            weaker_rules.append(f"publish.min_rows={self.min_rows} (default: {default.min_rows})")
        return weaker_rules
