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

    return tracked(settings.tracking, run_dir, settings.model_dump(mode="json"))
