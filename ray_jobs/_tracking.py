"""The tracked run of a run's directory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.settings import Settings

if TYPE_CHECKING:
    from finsent.tracking.tracker import Tracker


def tracking(settings: Settings, run_dir: Path) -> AbstractContextManager[Tracker]:
    """Record what happens inside the block where the section `tracking` says."""
    from finsent.tracking.tracker import tracked

    values = settings.model_dump(mode="json")
    if settings.sweep.storage:  # the URL of a database may have a password
        from tune.study import shown

        values["sweep"]["storage"] = shown(settings.sweep.storage)
    return tracked(settings.tracking, run_dir, values)


def in_group(settings: Settings, run_dir: Path) -> Settings:
    """Settings under which runs are tracked in the group of a sweep."""
    group = settings.tracking.group or run_dir.name
    tracking = settings.tracking.model_copy(update={"group": group})
    return settings.model_copy(update={"tracking": tracking})
