"""Settings of tracking."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting


class TrackingConfig(Section):
    """Where runs are recorded beside their own directory."""

    mode: Literal["auto", "online", "offline", "disabled"] = setting(
        "auto",
        "Weights & Biases; auto: as WANDB_MODE says, else online where a key is set "
        "(WANDB_API_KEY, netrc), else offline, into the run's directory, for `wandb sync` later",
    )
    project: str = setting("finsent", "its project", min_length=1)
    entity: str | None = setting(None, "its user or team; null: the key's default")
    group: str | None = setting(None, "group of runs that belong together; null: none")
    texts: bool = setting(
        False,
        "also record texts of rows: the worst mistakes of an evaluation, as a table and in its "
        "page; false: figures, pictures, and the page without texts",
    )
    tags: list[str] = setting(list, "tags of the run")
