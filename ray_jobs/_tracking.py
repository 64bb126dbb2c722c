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

    return tracked(settings.tracking, run_dir, settings.for_records())


def in_group(settings: Settings, run_dir: Path) -> Settings:
    """Settings under which runs are tracked in the group of a sweep."""
    group = settings.tracking.group or run_dir.name
    return settings.replaced(tracking=settings.tracking.replaced(group=group))
