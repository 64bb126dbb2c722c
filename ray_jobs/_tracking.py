"""Experiment tracking of a job's run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.settings import Settings

if TYPE_CHECKING:
    from finsent.tracking.tracker import Tracker


def tracking(settings: Settings, run_dir: Path) -> AbstractContextManager[Tracker]:
    """Track the block as a run, as the section `tracking` configures."""
    from finsent.tracking.tracker import tracked  # 0.3 s; many jobs track nothing

    return tracked(settings.tracking, run_dir, settings.for_records())


def in_group(settings: Settings, run_dir: Path) -> Settings:
    """Return settings by which runs are tracked in the group of a sweep."""
    group = settings.tracking.group or run_dir.name
    return settings.replaced(tracking=settings.tracking.replaced(group=group))
