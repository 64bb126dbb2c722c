"""The study behind Ray Tune's searcher interface. No Ray."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from finsent.errors import ConfigError, InputError
from finsent.modeling.backbone import resolve_backbone
from finsent.modeling.config import ModelConfig
from ray_jobs._settings import JobSettings
from tests.unit import sweeps
from tune.config import SweepConfig
from tune.plan import begin_sweep, make_plan
from tune.records import Params, Trial, read_sweep
from tune.samplers import check_search
from tune.search import StudySearch
from tune.space import Space
from tune.space_parser import check_configuration, parse_space
from tune.storage import masked_url
from tune.study import add_earlier_sweep, claim_study, open_study

pytestmark = pytest.mark.cost(1.5, "asks Optuna for many trials")

SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-3]},
    "train.schedule": {"choice": ["linear", "cosine"]},
    "train.lora_rank": {"int": [2, 8], "when": {"train.schedule": "cosine"}},
}


def config(**changes: Any) -> SweepConfig:
    return SweepConfig(**{"space": SPACE, "trials": 6, **changes})


def space(form: dict[str, Any] = SPACE) -> Space:
    return parse_space(form, JobSettings())


def make_searcher(
    folder: Path, past: list[Trial] | None = None, first: Any = (), **changes: Any
) -> tuple[StudySearch, optuna.Study]:
    settings = config(**changes)
    study = open_study(settings, folder, len(past or []))
    return StudySearch(study, space(settings.space), settings, past or [], first), study


def report(searcher: StudySearch, trial_id: str, epoch: int, value: float) -> None:
    searcher.on_trial_result(trial_id, {"epoch": epoch, "macro_f1": value})


def test_a_finished_trial_is_complete_with_its_final_value(tmp_path: Path) -> None:
    searcher, study = make_searcher(tmp_path)
    suggested = searcher.suggest("a")
    assert suggested["number"] == 0 and suggested["source"] == "search"
    report(searcher, "a", 1, 0.5)
    searcher.on_trial_complete("a", {"final/macro_f1": 0.7, "macro_f1": 0.7})
    (trial,) = study.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)
    assert trial.intermediate_values == {1: 0.5}


def test_a_stopped_trial_is_pruned_with_its_values(tmp_path: Path) -> None:
    searcher, study = make_searcher(tmp_path)
    searcher.suggest("a")
    report(searcher, "a", 1, 0.4)
    # Ray tells the searcher the last result only when the trial is complete.
    searcher.on_trial_complete("a", {"epoch": 2, "macro_f1": 0.3})
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.4, 2: 0.3}


@pytest.mark.parametrize(
    ("result", "error"),
    [({"failure": "CUDA out of memory", "macro_f1": -1e9}, False), (None, True), ({}, True)],
)
def test_a_failed_trial_has_no_value(tmp_path: Path, result: Any, error: bool) -> None:
    searcher, study = make_searcher(tmp_path)
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    (trial,) = study.trials
    assert (trial.state, trial.values) == (TrialState.FAIL, None)


def test_nan_never_reaches_the_study(tmp_path: Path) -> None:
    searcher, study = make_searcher(tmp_path)
    searcher.suggest("a")
    report(searcher, "a", 1, math.nan)
    searcher.on_trial_complete("a", {"final/macro_f1": math.nan, "epoch": 2, "macro_f1": math.nan})
    (trial,) = study.trials
    assert trial.state in (TrialState.PRUNED, TrialState.FAIL)
    assert not trial.intermediate_values and trial.value is None


def test_known_configurations_come_first_and_the_budget_ends_the_search(tmp_path: Path) -> None:
    known = {"train.learning_rate": 2e-4, "train.schedule": "cosine", "train.lora_rank": 4}
    searcher, _ = make_searcher(tmp_path, first=[known], trials=2)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert (first["params"], first["source"]) == (known, "known")
    assert second["source"] == "search" and second["params"] != known
    assert searcher.suggest("c") == StudySearch.FINISHED


def test_a_resumed_sweep_continues_its_open_trials_and_numbers(tmp_path: Path) -> None:
    before, study = make_searcher(tmp_path)
    params = [before.suggest(name)["params"] for name in "abc"]
    report(before, "b", 1, 0.5)
    before.on_trial_complete("a", {"final/macro_f1": 0.6})
    trials = [
        Trial(0, params[0], "finished", values={"macro_f1": 0.6}),
        Trial(1, params[1], "running"),
        Trial(2, params[2], "interrupted"),
    ]
    after, study = make_searcher(tmp_path, trials)
    suggested = [after.suggest(name) for name in "def"]
    assert [(s["number"], s["source"]) for s in suggested] == [
        (1, "resumed"),
        (2, "resumed"),
        (3, "search"),
    ]
    assert [s["params"] for s in suggested[:2]] == params[1:]
    assert suggested[2]["params"] not in params  # not drawn from the same numbers again
    report(after, "d", 1, 0.5)  # its run reports all epochs again
    after.on_trial_complete("d", {"final/macro_f1": 0.8})
    assert [t.state for t in study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.RUNNING,
        TrialState.RUNNING,
    ]
    assert study.trials[1].value == 0.8


def test_a_lost_study_is_rebuilt_from_the_records(tmp_path: Path) -> None:
    params: Params = {"train.learning_rate": 2e-4, "train.schedule": "linear"}
    searcher, study = make_searcher(tmp_path, [Trial(4, params, "running")])
    assert searcher.suggest("a")["params"] == params
    searcher.on_trial_complete("a", {"final/macro_f1": 0.8})
    assert study.trials[0].params == params and study.trials[0].value == 0.8


def test_a_trial_without_a_record_fails(tmp_path: Path) -> None:
    before, study = make_searcher(tmp_path)
    before.suggest("a")  # and the driver is killed
    after, study = make_searcher(tmp_path, [])
    assert study.trials[0].state == TrialState.FAIL
    assert after.suggest("b")["number"] == 0


def test_a_queued_trial_of_a_killed_driver_is_discarded(tmp_path: Path) -> None:
    queued = {"train.learning_rate": 2e-4, "train.schedule": "linear"}
    running: Params = {"train.learning_rate": 3e-4, "train.schedule": "linear"}
    open_study(config(), tmp_path).enqueue_trial(queued)  # and the driver is killed
    searcher, study = make_searcher(tmp_path, [Trial(0, running, "running")])
    assert searcher.suggest("a")["params"] == running
    searcher.on_trial_complete("a", {"final/macro_f1": 0.8})
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].params == running


def test_a_closed_searcher_tells_the_study_nothing(tmp_path: Path) -> None:
    searcher, study = make_searcher(tmp_path)
    searcher.suggest("a")
    searcher.close()
    searcher.on_trial_complete("a", {"epoch": 1, "macro_f1": 0.2})
    assert study.trials[0].state == TrialState.RUNNING


def test_a_grid_is_tried_once_each(tmp_path: Path) -> None:
    form = {
        "train.schedule": {"choice": ["linear", "cosine"]},
        "train.epochs": {"int": [1, 3]},
    }
    first_params = {"train.schedule": "cosine", "train.epochs": 2}
    done = Trial(0, {"train.schedule": "linear", "train.epochs": 1}, "finished")
    searcher, _ = make_searcher(
        tmp_path, [done], [first_params], space=form, search="grid", trials=100
    )
    seen: list[Any] = []
    while (suggested := searcher.suggest(f"t{len(seen)}")) != StudySearch.FINISHED:
        seen.append(suggested["params"])
    assert len(seen) == 5 and done.params not in seen and seen[0] == first_params
    assert all(seen.count(params) == 1 for params in seen)


@pytest.mark.parametrize("search", ["tpe", "gp", "random"])
def test_searches_are_seeded(tmp_path: Path, search: str) -> None:
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        searcher, _ = make_searcher(tmp_path / name, search=search)
        drawn.append([searcher.suggest(str(i))["params"] for i in range(3)])
    assert drawn[0] == drawn[1]


def test_cma_es_optimizes_numbers(tmp_path: Path) -> None:
    form = {
        "train.learning_rate": {"loguniform": [1e-5, 1e-3]},
        "train.dropout": {"uniform": [0, 1]},
    }
    form["train.dropout"] = {"uniform": [0, 0.5]}
    searcher, study = make_searcher(tmp_path, space=form, search="cmaes", trials=12)
    for i in range(12):
        params = searcher.suggest(str(i))["params"]
        searcher.on_trial_complete(
            str(i), {"final/macro_f1": -((params["train.dropout"] - 0.2) ** 2)}
        )
    assert study.best_value > -0.02
    assert any("cma:" in str(t.system_attrs) for t in study.trials)


def test_cma_es_learns_from_stopped_trials(tmp_path: Path) -> None:
    form = {
        "train.learning_rate": {"loguniform": [1e-5, 1e-3]},
        "train.dropout": {"uniform": [0, 0.5]},
    }
    searcher, study = make_searcher(tmp_path, space=form, search="cmaes", trials=20)
    for i in range(20):
        params = searcher.suggest(str(i))["params"]
        value = -((params["train.dropout"] - 0.2) ** 2)
        result = {"epoch": 1, "macro_f1": value}
        searcher.on_trial_complete(str(i), result | ({} if i else {"final/macro_f1": value}))
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, *[TrialState.PRUNED] * 19]
    assert study.trials[-1].system_attrs["cma:generation"] > 0


def test_several_objectives(tmp_path: Path) -> None:
    searcher, study = make_searcher(tmp_path, objectives=["parameters"], scheduler="none")
    searcher.suggest("a")
    report(searcher, "a", 1, 0.5)
    searcher.on_trial_complete("a", {"final/macro_f1": 0.7, "final/parameters": 100.0})
    searcher.suggest("b")
    searcher.on_trial_complete("b", {"epoch": 1, "macro_f1": 0.3})
    assert study.trials[0].values == [0.7, 100.0]
    assert study.trials[1].state == TrialState.FAIL
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_the_search_learns_from_earlier_sweeps(tmp_path: Path) -> None:
    form = {"train.learning_rate": {"loguniform": [1e-4, 1e-3]}}
    rates = [2e-4, 5e-5, 3e-4]
    events = []
    for number, rate in enumerate(rates):
        events += [
            sweeps.start(number, number, {"train.learning_rate": rate}),
            sweeps.end(number, number + 0.5, 4, 0.5 + number / 10),
        ]
    events += [
        sweeps.start(3, 3, {"train.learning_rate": 4e-4}),
        sweeps.end(3, 4, 1, None, status="failed"),
    ]
    old = read_sweep(sweeps.write(tmp_path / "old", events))
    settings = config(space=form)
    study = open_study(settings, tmp_path)
    assert add_earlier_sweep(study, space(form), old, settings) == 2  # one outside, one failed
    assert add_earlier_sweep(study, space(form), old, settings) == 0
    assert [t.value for t in study.trials] == [0.5, 0.7]
    searcher = StudySearch(study, space(form), settings, [], [])
    assert searcher.suggest("a")["number"] == 0  # the sweep counts its own
    searcher.on_trial_complete("a", {"final/macro_f1": 0.9})
    assert study.best_value == 0.9


def test_an_earlier_trial_that_a_killed_process_did_not_end_is_added_again(tmp_path: Path) -> None:
    params = {"train.learning_rate": 2e-4, "train.schedule": "linear"}
    events = [sweeps.start(0, 0, params), sweeps.end(0, 0.5, 4, 0.5)]
    old = read_sweep(sweeps.write(tmp_path / "old", events))
    study = open_study(config(), tmp_path)
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"from": f"{old.run_dir}#0"})
    )
    assert add_earlier_sweep(study, space(), old, config()) == 1
    StudySearch(study, space(), config(), [], [])
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert add_earlier_sweep(study, space(), old, config()) == 0


def test_a_locked_storage_is_one_line(tmp_path: Path) -> None:
    open_study(config(), tmp_path)
    holder = sqlite3.connect(tmp_path / "study.db")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(InputError, match=r"sweep\.storage=.*locked") as caught:
            open_study(config(), tmp_path)
        assert "\n" not in str(caught.value)
    finally:
        holder.close()


@pytest.mark.parametrize(
    "url", ["postgresql://nobody@127.0.0.1:1/x", "nonsense", "sqlite:////no/such/dir/x.db"]
)
def test_an_unreachable_storage_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"sweep\.storage="):
        open_study(config(storage=url), tmp_path)


def test_a_study_of_other_objectives_is_refused(tmp_path: Path) -> None:
    open_study(config(), tmp_path)
    with pytest.raises(InputError, match="other objectives"):
        open_study(config(metric="validation_loss"), tmp_path)


def test_a_study_belongs_to_one_sweep(tmp_path: Path) -> None:
    study = open_study(config(), tmp_path)
    claim_study(study, None)  # empty
    claim_study(study, "a of today")
    study.ask()
    claim_study(study, "a of today")  # the owner resumes
    for other in ("b of today", None):
        with pytest.raises(InputError, match=r"another sweep \(a of today\)"):
            claim_study(study, other)
    unknown = open_study(config(study="unknown"), tmp_path)
    unknown.ask()
    with pytest.raises(InputError, match="trials of another sweep"):
        claim_study(unknown, None)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://me:***@127.0.0.1:1/x"),
        (
            "postgresql+psycopg://127.0.0.1:1/x?user=me&password=secret",
            "postgresql+psycopg://127.0.0.1:1/x?***",
        ),
        ("postgres//me:secret@127.0.0.1/x", "***"),
        ("postgresql://me:secret@127.0.0.1:port/x", "***"),
        ("postgresql://me:a/secret@127.0.0.1:1/x", "postgresql://me:***@127.0.0.1:1/x"),
        ("postgresql://me:a@secret@127.0.0.1:1/x", "***"),
    ],
)
def test_a_password_is_masked(url: str, masked: str, tmp_path: Path) -> None:
    assert masked_url(url) == masked
    with pytest.raises(InputError) as caught:
        open_study(config(storage=url), tmp_path)
    assert str(caught.value).startswith(f"sweep.storage={masked!r}: Optuna cannot use it (")
    assert "secret" not in str(caught.value)
    values = JobSettings(sweep=config(storage=url))
    recorded: Any = values.for_records()
    assert recorded["sweep"]["storage"] == masked
    backbone = resolve_backbone(ModelConfig(backbone="tiny"), tmp_path)
    begin_sweep(make_plan(values, backbone), tmp_path, "v1", 1)
    assert read_sweep(tmp_path).settings.storage == masked


def test_the_url_of_a_file_is_not_masked() -> None:
    for url in ("sqlite:////a/study.db", "sqlite:///a.db?timeout=3"):
        assert masked_url(url) == url


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"train.learning_rate": 1e-4}, "train.schedule is missing"),
        ({"train.learning_rate": 1e-4, "train.schedule": "linear", "x": 1}, "x is not in"),
        ({"train.learning_rate": 1.0, "train.schedule": "linear"}, "is outside"),
        ({"train.learning_rate": 1e-4, "train.schedule": "step"}, "is outside"),
        ({"train.learning_rate": 1e-4, "train.schedule": "cosine"}, "lora_rank is missing"),
        (
            {"train.learning_rate": 1e-4, "train.schedule": "cosine", "train.lora_rank": 2.5},
            "outside",
        ),
    ],
)
def test_configurations_outside_a_space_are_refused(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_configuration(space(), params, "sweep.known")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"search": "cmaes"}, "numbers without conditions"),
        ({"search": "grid"}, "learning_rate"),
        ({"search": "random", "scheduler": "pbt"}, "depends on another"),
        ({"known": [{"train.dropout": 0.1}]}, "sweep.known"),
    ],
)
def test_unsupported_spaces_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_search(config(**changes), space())
