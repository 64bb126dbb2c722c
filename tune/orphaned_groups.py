"""What killed trainings leave behind in the cluster.

A trial is stopped by killing its training. Its actors die with it, but a placement group that an
actor has made lives until actor and job are dead, and would keep its CPUs and GPUs from the trials
that follow.
"""

from __future__ import annotations

import time

import ray
from ray._private.state import state as cluster_state  # the public one needs a dashboard
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group

from tune.training import Training

_MAKERS = (Training.__name__, "TrainController")  # the latter is Ray Train's
_LOOK = 0.1  # seconds between two looks
_LATE = 1.0  # seconds for what a maker asked for just before it died


def give_back() -> None:
    """Remove the placement groups of this job whose makers are dead."""
    job = ray.get_runtime_context().get_job_id()
    for row in cluster_state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(row)  # type: ignore[attr-defined]
        maker = ray.ActorID(group.creator_actor_id)
        own = not maker.is_nil() and group.creator_job_id.hex() == job
        if own and group.state != group.REMOVED and _dead(maker):
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def _dead(maker: ray.ActorID) -> bool:
    # Not by the mark on the group: one that comes just after the death of its maker never gets it.
    return bool(cluster_state.actor_table(maker.hex()).get("State", "DEAD") == "DEAD")


def give_back_all(timeout: float) -> None:
    """The same, when the last training of this job has died.

    Args:
        timeout: seconds to wait for that.
    """
    deadline = time.monotonic() + timeout
    while _making() and time.monotonic() < deadline:
        time.sleep(_LOOK)
    deadline = time.monotonic() + _LATE
    give_back()
    while time.monotonic() < deadline:
        time.sleep(_LOOK)
        give_back()


def _making() -> bool:
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    actors = cluster_state.actor_table(None, job_id=job).values()
    return any(a["ActorClassName"] in _MAKERS and a["State"] != "DEAD" for a in actors)
