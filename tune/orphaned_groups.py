"""Placement groups that killed trainings leave behind in the cluster.

A trial is stopped by killing its training. Its actors die with it. A placement group that one of
them has created lives until the job ends, and would keep its CPUs and GPUs from later trials.
"""

from __future__ import annotations

import time

from ray.util.placement_group import remove_placement_group

from finsent.adapters.ray_tune import TRAIN_CONTROLLER, has_live_actors, orphaned_placement_groups
from tune.training import Training

_CREATORS = (Training.__name__, TRAIN_CONTROLLER)
_POLL_SECONDS = 0.1
_LATE_SECONDS = 1.0  # for groups that a creator requested just before its death


def remove_orphaned_groups() -> None:
    """Remove the placement groups of this job whose creators are dead."""
    for group in orphaned_placement_groups():
        remove_placement_group(group)


def remove_last_orphaned_groups(timeout: float) -> None:
    """Wait until the job's trainings are dead, and remove their placement groups.

    Args:
        timeout: seconds to wait.
    """
    deadline = time.monotonic() + timeout
    while has_live_actors(_CREATORS) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    deadline = time.monotonic() + _LATE_SECONDS
    remove_orphaned_groups()
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        remove_orphaned_groups()
