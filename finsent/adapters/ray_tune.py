"""Private and fragile APIs of Ray Tune, and of the Ray core that its trials leave behind.

tests/unit/test_adapter_ray_tune.py fails where an upgrade of Ray changes one of them.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol

import ray
from ray._private.state import state as cluster_state
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup

# --- settings that Ray Tune reads from environment variables only --------------------------------


def silence_output() -> None:
    """Stop Ray Tune from printing, for all later runs of this process.

    `RunConfig(verbose=0)` leaves the tables of the new output and the tracebacks of trials. The
    sweep's own log has a line per trial, with the reason of a failure.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"


def limit_pending_trials(count: int) -> None:
    """Set how many trials of later runs may wait for resources at the same time.

    With a searcher, Ray Tune takes the number from `TuneConfig.max_concurrent_trials`. Without a
    searcher (population-based training) the default is at least 200, and there is no argument.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(count)


# --- trials --------------------------------------------------------------------------------------


class TuneTrial(Protocol):
    """The attributes of `ray.tune.experiment.Trial` that callbacks read; Ray documents none."""

    config: Mapping[str, Any]  # under population-based training maybe another trial's
    custom_trial_name: str  # of `TuneConfig.trial_name_creator`, given once
    last_result: Mapping[str, Any] | None
    error_file: str | None  # path of the traceback


def flat_key(*path: str) -> str:
    """Return the key by which a searcher gets a nested value of a reported result.

    Ray Tune flattens results for searchers, but not for callbacks.
    """
    return "/".join(path)


def exit_trial() -> NoReturn:
    """End the trial of this thread now, without a result.

    A trial that Ray Tune stops ends at its next report only, for which Ray Tune waits 10 seconds
    before it kills the process.
    """
    sys.exit()


# --- schedulers ----------------------------------------------------------------------------------

# Replaces Ray Tune's controller in calls of a scheduler outside a run. ASHA never uses it.
NO_CONTROLLER: Any = None
# `min_time_slice` with which MedianStoppingRule never pauses a trial. The rule has no switch.
NEVER_PAUSE: Any = math.inf


def stand_in_trial(trial_id: str) -> Any:
    """Return an object that ASHA accepts as a trial: of a trial, ASHA reads its ID only.

    By this, trials of an earlier process are replayed and the cost of a sweep is simulated.
    """
    return SimpleNamespace(trial_id=trial_id)


# --- placement groups of killed actors -----------------------------------------------------------

TRAIN_CONTROLLER = "TrainController"  # class of Ray Train's actor that creates placement groups


def orphaned_placement_groups() -> list[PlacementGroup]:
    """Return this job's placement groups whose creator, an actor, is dead.

    `ray.util.placement_group_table` does not name the creator, and `ray.util.state` needs a
    dashboard. The mark "creator is dead" on a group is not enough: a group that is registered just
    after the death of its creator never gets the mark.
    """
    job = ray.get_runtime_context().get_job_id()
    groups = []
    for row in cluster_state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(row)  # type: ignore[attr-defined]
        creator = ray.ActorID(group.creator_actor_id)
        is_own = not creator.is_nil() and group.creator_job_id.hex() == job
        if is_own and group.state != group.REMOVED and not _is_alive(creator):
            groups.append(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return groups


def has_live_actors(class_names: Collection[str]) -> bool:
    """Return whether an actor of one of these classes lives in this job."""
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    actors = cluster_state.actor_table(None, job_id=job).values()
    return any(a["ActorClassName"] in class_names and a["State"] != "DEAD" for a in actors)


def _is_alive(actor: ray.ActorID) -> bool:
    return bool(cluster_state.actor_table(actor.hex()).get("State", "DEAD") != "DEAD")
