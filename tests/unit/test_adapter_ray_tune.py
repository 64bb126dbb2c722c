"""What finsent.adapters.ray_tune expects of Ray; a failure names what an upgrade has changed."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray._private.state import state as cluster_state
from ray.air._internal.util import RunnerThread
from ray.core.generated import gcs_pb2
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.tune.execution.tune_controller import _get_max_pending_trials
from ray.tune.experiment import Trial
from ray.tune.experimental.output import get_air_verbosity
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.tune import _setup_signal_catching
from ray.tune.utils import flatten_dict
from ray.util.placement_group import PlacementGroup

from finsent.adapters import ray_tune

pytestmark = pytest.mark.cost(2, "imports Ray Tune")


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_AIR_NEW_OUTPUT", "TUNE_PRINT_ALL_TRIAL_ERRORS", "TUNE_MAX_PENDING_TRIALS_PG")
    for name in names:
        monkeypatch.setenv(name, "auto")  # so that the variable of before comes back
        monkeypatch.delenv(name)


def test_output_is_silenced_by_environment_variables() -> None:
    assert get_air_verbosity(0) is not None
    ray_tune.silence_output()
    assert get_air_verbosity(0) is None, "Ray Tune no longer reads RAY_AIR_NEW_OUTPUT"
    from ray.tune import constants

    names = {name for value in vars(constants).values() if isinstance(value, set) for name in value}
    for name in ("TUNE_PRINT_ALL_TRIAL_ERRORS", "TUNE_MAX_PENDING_TRIALS_PG"):
        assert name in names, f"Ray Tune no longer reads {name}"
    assert os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] == "0"


def test_pending_trials_are_limited() -> None:
    class Named(Searcher):
        def suggest(self, trial_id: str) -> Any:
            """See `Searcher.suggest`."""

    limited = SearchGenerator(ConcurrencyLimiter(Named("macro_f1", "max"), 3))
    assert _get_max_pending_trials(limited) == 3, (
        "Ray Tune no longer derives the pending trials of a searcher from max_concurrent_trials: "
        "call limit_pending_trials with a searcher, too"
    )
    ray_tune.limit_pending_trials(5)
    assert _get_max_pending_trials(BasicVariantGenerator()) == 5, (
        "Ray Tune no longer reads TUNE_MAX_PENDING_TRIALS_PG"
    )


def test_a_trial_has_the_attributes_that_callbacks_read() -> None:
    trial = Trial("nothing", stub=True, config={"number": 1})
    for name in ray_tune.TuneTrial.__annotations__:
        is_there = name in vars(trial) or hasattr(Trial, name)
        assert is_there, f"Ray Tune's Trial has no attribute {name} any more"
    assert trial.config == {"number": 1}


def test_searchers_get_flat_results() -> None:
    flat = flatten_dict({"final": {"macro_f1": 0.5}})
    assert flat == {ray_tune.flat_key("final", "macro_f1"): 0.5}, (
        "Ray Tune flattens results by other keys"
    )


def test_an_exit_ends_the_thread_of_a_trial_and_not_the_process() -> None:
    errors: Any = SimpleNamespace(put=lambda *_, **__: None)
    thread = RunnerThread(target=ray_tune.exit_trial, error_queue=errors)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "Ray Tune's thread survives SystemExit"


def test_asha_reads_only_the_id_of_a_trial_and_needs_no_controller() -> None:
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="macro_f1", mode="max", grace_period=1, max_t=4
    )
    decisions = []
    for number, value in enumerate((0.9, 0.8, 0.1)):
        trial = ray_tune.stand_in_trial(f"trial-{number}")
        scheduler.on_trial_add(ray_tune.NO_CONTROLLER, trial)
        result = {"epoch": 1, "macro_f1": value}
        decisions.append(scheduler.on_trial_result(ray_tune.NO_CONTROLLER, trial, result))
    assert decisions[0] == TrialScheduler.CONTINUE, "ASHA stops a trial that has no rival"
    assert decisions[-1] == TrialScheduler.STOP, "ASHA does not stop a trial below the others"


def test_median_stopping_pauses_no_trial() -> None:
    controller: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    trial: Any = type("Hashable", (), {"trial_id": "a"})()
    result = {"epoch": 1, "macro_f1": 0.5}
    decisions = []
    for time_slice in (0, ray_tune.NEVER_PAUSE):
        rule = MedianStoppingRule("epoch", "macro_f1", "max", 1, min_time_slice=time_slice)
        rule.on_trial_add(controller, trial)
        decisions.append(rule.on_trial_result(controller, trial, result))
    assert decisions == [TrialScheduler.PAUSE, TrialScheduler.CONTINUE], (
        "MedianStoppingRule pauses trials by another rule than min_time_slice"
    )


def test_placement_groups_and_actors_can_be_listed_without_a_dashboard() -> None:
    assert TrainController.__name__ == ray_tune.TRAIN_CONTROLLER
    data: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    fields = set(data.DESCRIPTOR.fields_by_name)
    needed = {"creator_actor_id", "creator_job_id", "placement_group_id", "state"}
    assert needed <= fields, f"Ray's table of placement groups has no {needed - fields} any more"
    assert isinstance(data.REMOVED, int)
    for name in ("_connect_and_get_accessor", "actor_table"):
        assert callable(getattr(cluster_state, name, None)), f"Ray's state has no {name} any more"
    described = cluster_state._gen_actor_info(gcs_pb2.ActorTableData())  # type: ignore[attr-defined]
    assert {"ActorClassName", "State"} <= described.keys(), "Ray describes an actor by other keys"
    assert "DEAD" in gcs_pb2.ActorTableData.ActorState.keys()  # type: ignore[attr-defined]  # noqa: SIM118
    assert PlacementGroup.empty().id.is_nil()


def test_a_tuner_in_a_thread_leaves_the_handler_of_sigint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: installed.append(number))
    thread = threading.Thread(target=_setup_signal_catching)
    thread.start()
    thread.join(60)
    assert installed == [], "Ray Tune replaces signal handlers outside the main thread, too"


def test_a_trial_may_reserve_no_cpu() -> None:
    def trial(config: dict[str, Any]) -> None:
        """Nothing."""

    resources: Any = tune.with_resources(trial, {"CPU": 0, "memory": 1 << 20})
    factory = resources._resources
    assert factory.required_resources == {"memory": 1 << 20}, (
        "Ray Tune no longer accepts trials without a CPU"
    )
