"""Schedulers of sweeps: which trials end early. No Ray cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from finsent.adapters.ray_tune import NO_CONTROLLER, stand_in_trial
from finsent.modeling.backbone import Backbone
from tests.unit import sweeps
from tune.plan import make_plan
from tune.records import (
    Epoch,
    Trial,
)
from tune.schedulers import make_scheduler

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return sweeps.tiny_backbone(tmp_path)


def test_asha_resumes_with_past_trials(backbone: Backbone) -> None:
    plan = make_plan(sweeps.tiny_settings(reduction=3), backbone)
    past = [
        Trial(n, {}, "stopped", epochs=[Epoch(1, 0.0, {"macro_f1": 0.7}, None)]) for n in range(3)
    ]

    def judge(value: float, known: list[Trial]) -> str:
        scheduler = make_scheduler(plan.config, plan.space, 9, known)
        scheduler.on_trial_add(NO_CONTROLLER, stand_in_trial("new"))
        return scheduler.on_trial_result(
            NO_CONTROLLER, stand_in_trial("new"), {"epoch": 1, "macro_f1": value}
        )

    assert judge(0.6, []) == TrialScheduler.CONTINUE  # no other trial
    assert judge(0.6, past) == TrialScheduler.STOP
    assert judge(0.8, past) == TrialScheduler.CONTINUE


def test_a_resumed_trial_is_not_judged_again_at_passed_rungs(backbone: Backbone) -> None:
    plan = make_plan(sweeps.tiny_settings(), backbone)
    begun = Trial(0, {}, "running", epochs=[Epoch(n, 0, {"macro_f1": 0.5}, None) for n in (1, 2)])
    above = [Epoch(1, 0, {"macro_f1": 0.7}, None)]
    better = [Trial(n, {}, "finished", epochs=above) for n in (1, 2, 3)]
    scheduler = make_scheduler(plan.config, plan.space, 9, [begun, *better])

    def judged(number: int, *values: float) -> list[str]:
        trial: Any = SimpleNamespace(trial_id=f"new-{number}", config={"number": number})
        scheduler.on_trial_add(NO_CONTROLLER, trial)
        results = [{"epoch": epoch, "macro_f1": value} for epoch, value in enumerate(values, 1)]
        return [scheduler.on_trial_result(NO_CONTROLLER, trial, result) for result in results]

    assert judged(0, 0.5, 0.5, 0.6, 0.7) == [TrialScheduler.CONTINUE] * 4
    assert judged(4, 0.5) == [TrialScheduler.STOP]
    assert judged(5, 0.8, 0.8, 0.8, 0.6)[-1] == TrialScheduler.STOP  # trial 0 reached 0.7 there


def test_median_stopping_pauses_no_trial(backbone: Backbone) -> None:
    plan = make_plan(sweeps.tiny_settings(scheduler="median"), backbone)
    scheduler = make_scheduler(plan.config, plan.space, 4, [])
    waiting: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])

    class Named:
        trial_id = "a"

    trial: Any = Named()
    scheduler.on_trial_add(waiting, trial)
    result = {"epoch": 1, "macro_f1": 0.5}
    assert scheduler.on_trial_result(waiting, trial, result) == TrialScheduler.CONTINUE


def test_no_scheduler_ends_a_trial_at_its_last_epoch(backbone: Backbone) -> None:
    for name in ("asha", "hyperband"):
        plan = make_plan(sweeps.tiny_settings(scheduler=name), backbone)
        scheduler = make_scheduler(plan.config, plan.space, 4, [])
        scheduler.on_trial_add(NO_CONTROLLER, stand_in_trial("a"))
        for epoch in range(1, 5):
            result = {"epoch": epoch, "macro_f1": 0.5 + epoch / 100}
            assert (
                scheduler.on_trial_result(NO_CONTROLLER, stand_in_trial("a"), result)
                == TrialScheduler.CONTINUE
            )


def test_population_based_training_stays_in_the_space(backbone: Backbone) -> None:
    space = {**sweeps.TINY_SPACE, "train.warmup_steps": {"int": [0, 10]}}
    space["train.layer_decay"] = {"quantized": [0.7, 1.0, 0.1]}
    plan = make_plan(sweeps.tiny_settings(space=space, scheduler="pbt", search="random"), backbone)
    scheduler: Any = make_scheduler(plan.config, plan.space, 4, [])
    params = {
        "train.learning_rate": 9.0,
        "train.batch_size": 16,
        "train.warmup_steps": 11.8,
        "train.layer_decay": 0.93,
    }
    clipped = scheduler._custom_explore_fn({"trial": {"params": params}})["trial"]["params"]
    assert clipped == {
        "train.learning_rate": 1e-2,
        "train.batch_size": 16,
        "train.warmup_steps": 10,
        "train.layer_decay": 0.9,
    }


class TuneTrialAndController:
    """Ray Tune's trial and controller in one, with another trial waiting."""

    def __init__(self) -> None:
        keeps_all = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.run_metadata = SimpleNamespace(checkpoint_manager=keeps_all)
        self.config: dict[str, Any] = {"trial": {}}
        self.status, self.search_alg, self.experiment_tag = "RUNNING", None, ""

    def is_finished(self) -> bool:
        return False

    def get_trials(self) -> list[Any]:
        return [SimpleNamespace(status="PENDING")]


def test_weights_are_exchanged_after_kept_epochs_and_before_the_last(
    backbone: Backbone,
) -> None:
    plan = make_plan(
        sweeps.tiny_settings(scheduler="pbt", search="random", grace_epochs=2), backbone
    )
    exchanges = []
    for first_epoch in (1, 3):  # a resumed trial starts at a later epoch
        scheduler = make_scheduler(plan.config, plan.space, 6, [])
        trial: Any = TuneTrialAndController()
        scheduler.on_trial_add(trial, trial)
        for epoch in range(first_epoch, 7):
            result = {"epoch": epoch, "macro_f1": 0.5}
            decision = scheduler.on_trial_result(trial, trial, result)
            exchanges += [epoch] if decision != TrialScheduler.CONTINUE else []
    assert exchanges == [2, 4, 4]


def test_a_diverged_trial_gives_no_weights(backbone: Backbone) -> None:
    plan = make_plan(sweeps.tiny_settings(scheduler="pbt", search="random"), backbone)
    scheduler: Any = make_scheduler(plan.config, plan.space, 4, [])
    result = {"epoch": 1, "macro_f1": -1e9, "failure": "the loss is no number"}
    assert (
        scheduler.on_trial_result(NO_CONTROLLER, NO_CONTROLLER, result) == TrialScheduler.CONTINUE
    )
