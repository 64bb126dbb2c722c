"""Configurations that a search suggests again, and trials that diverged. No Ray."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from ray_jobs._settings import JobSettings
from tests.unit import sweeps
from tune.config import SweepConfig
from tune.population import Population
from tune.records import Trial, read_sweep
from tune.search import StudySearch
from tune.space_parser import parse_space
from tune.study import add_earlier_sweep, bad_value, open_study
from tune.trial_events import TrialEnded, TrialStatus

pytestmark = pytest.mark.cost(1.5, "asks Optuna for many trials")

FOUR: dict[str, Any] = {
    "train.schedule": {"choice": ["linear", "cosine"]},
    "train.batch_size": {"choice": [16, 32]},
}
DIVERGED = {"failure": "the loss is not a finite number", "cause": "diverged", "macro_f1": -1e9}


class Sweep:
    """A searcher, its study, and the repeats that it noted."""

    def __init__(
        self, folder: Path, past: list[Trial] | None = None, first: Any = (), **changes: Any
    ) -> None:
        self.config = SweepConfig(**{"space": FOUR, "trials": 10, **changes})
        self.study = open_study(self.config, folder, len(past or []))
        self.repeats: list[int] = []
        space = parse_space(self.config.space, JobSettings())
        self.searcher = StudySearch(
            self.study, space, self.config, past or [], first, self.repeats.append
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        suggestion = self.searcher.suggest(trial_id)
        return None if suggestion == StudySearch.FINISHED else dict(suggestion)

    def end(self, trial_id: str, **result: Any) -> None:
        self.searcher.on_trial_complete(trial_id, result)

    def finish(self, trial_id: str, value: float) -> None:
        self.end(trial_id, **{"final/macro_f1": value})

    def run(self) -> list[dict[str, Any]]:
        """Try configurations one after another until none is suggested."""
        tried: list[dict[str, Any]] = []
        while (suggestion := self.suggest(str(len(tried)))) is not None:
            tried.append(suggestion["params"])
            self.finish(str(len(tried) - 1), 0.5 + len(tried) / 100)
        return tried


def different(tried: list[dict[str, Any]]) -> int:
    return len({str(sorted(params.items())) for params in tried})


# --- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["tpe", "random", "gp", "grid"])
def test_four_configurations_are_four_trials(tmp_path: Path, search: str) -> None:
    sweep = Sweep(tmp_path, search=search)
    tried = sweep.run()
    assert len(tried) == different(tried) == 4
    assert sweep.searcher.exhausted
    assert len(sweep.study.trials) == 4 + len(sweep.repeats)
    assert len(sweep.repeats) == 0 if search == "grid" else 0 < len(sweep.repeats) <= 4 * 20


def test_a_space_with_as_many_configurations_as_trials_is_not_exhausted(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, search="random", trials=4)
    assert different(sweep.run()) == 4 and not sweep.searcher.exhausted


def test_cma_es_may_exhaust_a_space_of_integers(tmp_path: Path) -> None:
    space = {"train.epochs": {"int": [1, 2]}, "train.warmup_steps": {"int": [0, 1]}}
    sweep = Sweep(tmp_path, space=space, search="cmaes")
    assert different(sweep.run()) == 4 and sweep.searcher.exhausted


def test_a_repeat_gets_the_outcome_of_the_first_trial(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    tried = sweep.run()
    values = {str(params): 0.51 + number / 100 for number, params in enumerate(tried)}
    for trial in sweep.study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == pytest.approx(values[str(trial.params)])
    repeats = [
        trial.user_attrs["repeats"] for trial in sweep.study.trials if "repeats" in trial.user_attrs
    ]
    assert repeats == sweep.repeats


def one_of_two(folder: Path, **changes: Any) -> tuple[Sweep, dict[str, Any]]:
    """A search whose first configuration has been suggested again while its trial runs."""
    space = {"train.batch_size": {"choice": [16, 32]}}
    sweep = Sweep(folder, space=space, search="random", **changes)
    suggestion = sweep.suggest("a")
    assert suggestion is not None
    sweep.study.enqueue_trial(suggestion["params"])
    second = sweep.suggest("b")
    assert second is not None and second["params"] != suggestion["params"]
    assert sweep.repeats[0] == 0
    return sweep, suggestion["params"]


def test_a_repeat_of_a_running_trial_waits_for_it(tmp_path: Path) -> None:
    sweep, params = one_of_two(tmp_path)
    assert {t.state for t in sweep.study.trials} == {TrialState.RUNNING}
    assert sweep.suggest("c") is None and sweep.searcher.exhausted  # both are on their way
    sweep.searcher.on_trial_result("a", {"epoch": 1, "macro_f1": 0.3})
    sweep.end("a", epoch=2, macro_f1=0.4)  # stopped
    same = [trial for trial in sweep.study.trials if trial.params == params]
    assert len(same) >= 2
    for trial in same:
        assert trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {1: 0.3, 2: 0.4}


@pytest.mark.parametrize(
    ("status", "values", "state", "value"),
    [
        ("interrupted", {}, TrialState.RUNNING, None),
        ("finished", {"macro_f1": 0.7}, TrialState.COMPLETE, 0.7),
        ("failed", {}, TrialState.FAIL, None),
    ],
)
def test_a_repeat_that_waited_for_a_killed_driver(
    tmp_path: Path, status: TrialStatus, values: Any, state: TrialState, value: float | None
) -> None:
    before, params = one_of_two(tmp_path)
    before.searcher.close()
    past = [
        Trial(0, params, status, values=values),
        Trial(1, {"train.batch_size": 48 - params["train.batch_size"]}, "interrupted"),
    ]
    after = Sweep(tmp_path, past, space=before.config.space, search="random")
    same = [trial for trial in after.study.trials if trial.params == params]
    assert {(trial.state, trial.value) for trial in same} == {(state, value)}
    if status == "interrupted":
        resumed = after.suggest("d")
        assert resumed is not None and (resumed["number"], resumed["params"]) == (0, params)
        after.finish("d", 0.6)
        same = [trial for trial in after.study.trials if trial.params == params]
        assert {(trial.state, trial.value) for trial in same} == {(TrialState.COMPLETE, 0.6)}


def test_a_resumed_sweep_trains_no_configuration_again(tmp_path: Path) -> None:
    before = Sweep(tmp_path, trials=2)
    tried = before.run()
    states: list[TrialStatus] = ["finished", "failed"]
    past = [Trial(n, params, states[n], values={"macro_f1": 0.5}) for n, params in enumerate(tried)]
    after = Sweep(tmp_path, past, first=[tried[0]], trials=10)
    more = after.run()
    assert len(more) == 2 and different(tried + more) == 4


@pytest.mark.parametrize(
    ("space", "value", "other_value"),
    [
        ({"train.batch_size": {"choice": [16, 16.0, 32]}}, 16, 16.0),
        ({"train.dropout": {"quantized": [0.0, 0.3, 0.1]}}, 0.3, 0.1 + 0.2),
        ({"train.weight_decay": {"choice": [0, 0.0, 0.1]}}, 0, 0.0),
    ],
)
def test_configurations_with_equal_settings_are_equal(
    space: Any, value: Any, other_value: Any
) -> None:
    [key] = space
    parsed = parse_space(space, JobSettings())
    assert parsed.identity({key: value}) == parsed.identity({key: other_value})
    assert parsed.identity({key: value}) != parsed.identity(
        {key: 1 if key != "train.dropout" else 0}
    )
    points = parsed.configurations(100)
    assert points is not None and len(points) == {"train.dropout": 4}.get(key, 2)


def test_a_seed_makes_another_configuration() -> None:
    space = parse_space(FOUR, JobSettings())
    params = {"train.schedule": "linear", "train.batch_size": 16}
    assert space.identity(params) != space.identity({**params, "train.seed": 7})


def test_a_continuous_space_is_not_listed() -> None:
    endless = parse_space({**FOUR, "train.dropout": {"uniform": [0, 0.5]}}, JobSettings())
    assert endless.configurations(10**9) is None
    assert (
        parse_space({"train.seed": {"int": [0, 2**40]}}, JobSettings()).configurations(2000) is None
    )
    conditional = {"when": {"train.schedule": "cosine"}}
    some = parse_space(
        {**FOUR, "train.warmup_steps": {"int": [0, 2], **conditional}}, JobSettings()
    )
    assert len(some.configurations(12) or {}) == 2 + 2 * 3
    assert some.configurations(11) is None


def test_known_configurations_are_tried_once(tmp_path: Path) -> None:
    known = {"train.schedule": "linear", "train.batch_size": 16}
    sweep = Sweep(tmp_path, first=[known, {**known, "train.batch_size": 16.0}], search="random")
    tried = sweep.run()
    assert tried[0] == known and len(tried) == different(tried) == 4


def test_a_population_has_different_members(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, search="random", scheduler="pbt", trials=8)
    population = Population(sweep.searcher)
    assert different([config["params"] for config in population.configs]) == 4
    event = sweeps.end(0, 1.0, 1, None, status="diverged", reason="NaN", cause="diverged")
    population.on_event(TrialEnded.model_validate(event))
    own = [
        t
        for t in sweep.study.trials
        if 0 in (t.user_attrs.get("number"), t.user_attrs.get("repeats"))
    ]
    assert {t.state for t in own} == {TrialState.PRUNED}


# --- trials that diverged -------------------------------------------------------------------------


def test_the_search_avoids_settings_that_diverge(tmp_path: Path) -> None:
    """Above 1e-3, which is 60 % of the space; told as failed, about 80 % of the trials diverged."""
    space = {"train.learning_rate": {"loguniform": [1e-5, 0.9]}}
    sweep = Sweep(tmp_path, space=space, trials=20)
    tried: list[float] = []
    while (suggestion := sweep.suggest(str(len(tried)))) is not None:
        rate = suggestion["params"]["train.learning_rate"]
        tried.append(rate)
        if rate > 1e-3:
            sweep.end(str(len(tried) - 1), **DIVERGED)
        else:
            sweep.finish(str(len(tried) - 1), 0.8 - 0.1 * (math.log10(rate) + 4) ** 2)
    assert sum(rate > 1e-3 for rate in tried[8:]) <= 4, tried
    assert sweep.study.best_trial.params["train.learning_rate"] <= 1e-3


def test_a_diverged_trial_is_infeasible_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    """TPE then ranks it last, also after a good epoch: see test_adapter_optuna.py."""
    sweep = Sweep(tmp_path)
    for name in "ab":
        sweep.suggest(name)
    sweep.searcher.on_trial_result("a", {"epoch": 1, "macro_f1": 0.8})
    sweep.end("a", **DIVERGED)
    sweep.end("b", epoch=1, macro_f1=0.2)
    diverged, stopped = sweep.study.trials[:2]
    assert diverged.state == stopped.state == TrialState.PRUNED
    assert (diverged.constraints, stopped.constraints) == ({"diverged": 1.0}, {})


def test_the_search_learns_from_memory_failures_and_not_from_lost_processes(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for name in "abc":
        sweep.suggest(name)
    sweep.end("a", failure="memory does not suffice", cause="memory")
    sweep.end("b", failure="64 CPUs are not there")
    sweep.searcher.on_trial_complete("c", {"cause": "diverged"}, error=True)
    by_number = {t.user_attrs["number"]: t for t in sweep.study.trials if "number" in t.user_attrs}
    states = [(by_number[n].state, by_number[n].constraints) for n in range(3)]
    assert states == [
        (TrialState.PRUNED, {"memory": 1.0}),
        (TrialState.FAIL, {}),
        (TrialState.FAIL, {}),
    ]


def test_several_objectives_learn_from_a_diverged_trial(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, objectives=["parameters"], scheduler="none")
    sweep.suggest("a")
    sweep.end("a", **DIVERGED)
    [trial] = sweep.study.trials
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {"diverged": 1.0})


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [("macro_f1", [0.7], 0.0), ("validation_loss", [0.4], 1.0986), ("validation_loss", [3.0], 3.0)],
)
def test_a_bad_value_is_on_the_scale_of_the_others(
    tmp_path: Path, metric: str, values: list[float], expected: float
) -> None:
    sweep = Sweep(tmp_path, metric=metric, search="gp")
    for number, value in enumerate(values):
        sweep.suggest(str(number))
        sweep.end(str(number), **{f"final/{metric}": value})
    assert bad_value(sweep.study, sweep.config) == pytest.approx(expected, abs=1e-4)
    sweep.suggest("x")
    sweep.end("x", **DIVERGED)
    assert sweep.study.trials[-1].value == pytest.approx(expected, abs=1e-4)


def test_the_search_learns_from_diverged_trials_of_earlier_sweeps(tmp_path: Path) -> None:
    form = {"train.learning_rate": {"loguniform": [1e-4, 1e-3]}}
    events = [
        sweeps.start(0, 0, {"train.learning_rate": 9e-4}),
        sweeps.end(0, 1, 1, None, status="diverged", cause="diverged"),
        sweeps.start(1, 2, {"train.learning_rate": 8e-4}),
        sweeps.end(1, 3, 1, None, status="failed"),
    ]
    old = read_sweep(sweeps.write(tmp_path / "old", events))
    config = SweepConfig(space=form)
    study = open_study(config, tmp_path)
    space = parse_space(form, JobSettings())
    assert add_earlier_sweep(study, space, old, config) == 1
    assert add_earlier_sweep(study, space, old, config) == 0
    [trial] = study.trials
    assert trial.params == {"train.learning_rate": 9e-4}
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {"diverged": 1.0})
