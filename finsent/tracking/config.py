"""Settings of tracking."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting


class TrackingConfig(Section):
    """Where runs are recorded in addition to their own directory."""

    mode: Literal["auto", "online", "offline", "disabled"] = setting(
        "auto",
        "mode of Weights & Biases; auto: the mode of WANDB_MODE, else online if a key is set "
        "(WANDB_API_KEY, netrc), else offline: `wandb sync` uploads the files in the run's "
        "directory later",
    )
    project: str = setting("finsent", "project of Weights & Biases", min_length=1)
    entity: str | None = setting(
        None, "user or team of Weights & Biases; null: the default of the key"
    )
    group: str | None = setting(None, "group of runs that belong together; null: none")
    texts: bool = setting(
        False,
        "also record texts of rows: the worst mistakes of an evaluation, as a table and in its "
        "page; false: figures, pictures, and the page without texts",
    )
    tags: list[str] = setting(list, "tags of the run")
