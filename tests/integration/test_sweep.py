"""Sweeps on a real Ray: one test trains the tiny BERT, the others have sham trainings."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from ray import tune
from ray.util import placement_group, placement_group_table, remove_placement_group

from benchmarks.sweep import stub_trial
from finsent.data.versions.dataset import DatasetVersion
from finsent.disk import find_disk_error
from finsent.errors import InputError
from finsent.files import read_json
from finsent.training.metrics_log import read_epochs
from tests.disks import small_disk
from tests.integration.sweeping import (
    make_version,
    settings,
    sham_sweep,
    training_sweep,
    wait_until_released,
)
from tests.unit.models import saved_model
from tune.objectives import TrialModel, objective_values
from tune.orphaned_groups import remove_orphaned_groups
from tune.records import read_sweep
from tune.sweep import search
from tune.trial import STOP_FILE
from tune.trial_events import Event
from tune.verification import verify


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return make_version(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.cost(50, "two trainings under Ray Train")
def test_a_failed_trial_does_not_fail_the_sweep(version: DatasetVersion, tmp_path: Path) -> None:
    """Three trials in turn: the first learns, the second is stopped, the third cannot start.

    tests/slow/test_sweep_signals.py trains to verify a winner, too.
    """
    run_dir = tmp_path / "run"
    good, slow, bad = (
        {"train.learning_rate": rate, "train.epochs": epochs, "train.cpus_per_worker": cpus}
        for rate, epochs, cpus in ((3e-3, 4, 1), (1e-6, 300, 1), (3e-3, 2, 64))
    )
    sweep = {
        "space": {
            "train.learning_rate": {"loguniform": [1e-6, 1e-2]},
            "train.epochs": {"int": [2, 300]},
            "train.cpus_per_worker": {"choice": [1, 64]},
        },
        "known": [good, slow, bad],
        "default_first": False,
        "trials": 3,
        "grace_epochs": 2,
    }
    plan, context, past = training_sweep(version, run_dir, sweep, epochs=2)
    events: list[Event] = []
    search(plan, context, past, [], 1, follow=events.append)
    result = read_sweep(run_dir)
    assert [t.number for t in result.trials] == [0, 1, 2]
    first, second, third = result.trials
    assert first.status == "finished" and [e.epoch for e in first.epochs] == [1, 2, 3, 4]
    assert first.values["macro_f1"] == max(e.metrics["macro_f1"] for e in first.epochs)
    assert second.status == "stopped"
    assert third.status == "failed" and "train.cpus_per_worker=64" in (third.reason or "")
    assert {event.event for event in events} == {"start", "epoch", "end"}
    # The stopped trial's resources are released, and it has not trained to its end.
    wait_until_released()
    epochs = read_epochs(run_dir / "trials" / "0001")
    assert max(line.epoch for line in epochs) < 300
    # The study has the same values, and none of the failed trial.
    assert result.settings.storage is not None
    study = optuna.load_study(
        study_name=result.settings.study_name, storage=result.settings.storage
    )
    assert study.trials[0].value == first.values["macro_f1"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    # Disk space: a finished trial's checkpoints are deleted, its model stays.
    trial_dir = run_dir / "trials" / "0000"
    assert (trial_dir / "model" / "model.safetensors").is_file()
    assert not [*(run_dir / "trials").glob("*/checkpoint_[es]*_[0-9]*")]


def test_objectives_are_recorded_and_candidates_verified_with_the_same_new_seeds(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}},
        "objectives": ["latency_ms", "parameters", "ece"],
        "scheduler": "none",
        "trials": 2,
        "verify_best": 1,
        "verify_seeds": 2,
    }
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=1)
    search(plan, context, past, [], 2)
    result = read_sweep(run_dir)
    for trial in result.trials:
        assert trial.status == "finished", trial.reason
        macro_f1 = trial.epochs[0].metrics["macro_f1"]
        assert trial.values == {"macro_f1": macro_f1, "latency_ms": 5, "parameters": 5, "ece": 5}
    verified = verify(plan, context, result, 2)
    rows = [*verified.candidates, verified.default]
    seeds = [{seed.seed for seed in row.seeds} for row in rows]
    assert seeds[0] == seeds[1] and len(seeds[0]) == 2
    assert plan.settings.train.seed not in seeds[0]
    assert verified.verified == max(row.mean for row in rows if row.mean is not None)
    chosen = next(row for row in rows if row.mean == verified.verified)
    assert verified.params == chosen.params
    assert (run_dir / "model" / "model.safetensors").is_file()
    # A second verification trains nothing again.
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("metrics.jsonl")}
    again = verify(plan, context, result, 2)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("metrics.jsonl")} == before
    means = [row.mean for row in verified.candidates]
    assert [row.mean for row in again.candidates] == means


@pytest.mark.cost(8, "12 trials, each in its own process")
def test_early_stopping_spends_less_and_a_sweep_can_be_made_longer(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 9, "default_first": False, "reduction": 2}
    plan, context, past = training_sweep(version, run_dir, sweep, epochs=4)
    search(plan, context, past, [], 1, trainable=stub_trial)  # the same suggestions each time
    result = read_sweep(run_dir)
    states = [trial.status for trial in result.trials]
    assert len(states) == 9 and states.count("stopped") >= 3 and states.count("finished") >= 2
    assert sum(len(t.epochs) for t in result.trials) < 9 * 4
    best = max(result.trials, key=lambda t: t.values["macro_f1"])
    assert best.status == "finished"

    restored = tune.Tuner.restore(str(run_dir / "tune/search-1"), trainable=stub_trial)
    grid = restored.get_results()
    assert len(grid) == 9 and grid.num_errors == 0
    top = grid.get_best_result("macro_f1", "max", scope="all").metrics
    assert top is not None and top["macro_f1"] > 0.7

    plan, context, past = training_sweep(version, run_dir, {**sweep, "trials": 12}, epochs=4)
    search(plan, context, past, [], 2, trainable=stub_trial)
    longer = read_sweep(run_dir)
    assert [t.number for t in longer.trials] == [*range(12)]
    assert [t.params for t in longer.trials[:9]] == [t.params for t in result.trials]


def test_budgets_end_a_search(version: DatasetVersion, tmp_path: Path) -> None:
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 1000, "max_epochs": 20, "scheduler": "median"}
    plan, context, past = training_sweep(version, tmp_path / "run", sweep, epochs=4)
    search(plan, context, past, [], 2, trainable=stub_trial)
    result = read_sweep(tmp_path / "run")
    assert 20 <= sum(len(t.epochs) for t in result.trials) <= 26
    assert {t.reason for t in result.trials if t.status == "interrupted"} <= {"sweep.max_epochs=20"}


def test_only_placement_groups_of_dead_actors_are_removed() -> None:
    class Maker:
        def make(self) -> str:
            self.group = placement_group([{"CPU": 0.01}])
            return str(self.group.id.hex())

    remote: Any = ray.remote(num_cpus=0)(Maker)
    own = placement_group([{"CPU": 0.01}])
    dead, alive = remote.remote(), remote.remote()
    orphaned_group, live_group = ray.get([dead.make.remote(), alive.make.remote()])
    remove_orphaned_groups()
    states = {key: row["state"] for key, row in placement_group_table().items()}
    assert "REMOVED" not in {states[orphaned_group], states[live_group], states[own.id.hex()]}
    ray.kill(dead)
    deadline = time.monotonic() + 30
    while placement_group_table()[orphaned_group]["state"] != "REMOVED":
        assert time.monotonic() < deadline
        remove_orphaned_groups()
    states = {key: row["state"] for key, row in placement_group_table().items()}
    assert "REMOVED" not in {states[live_group], states[own.id.hex()]}
    ray.kill(alive)
    remove_placement_group(own)
    wait_until_released(remove_orphaned_groups)


@pytest.mark.cost(8, "trials for 9 seconds")
def test_trials_that_are_running_at_the_time_limit_release_all_resources(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 50, "max_seconds": 9, "scheduler": "none"}
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=1000)
    begun = time.monotonic()
    search(plan, context, past, [], 2)
    assert time.monotonic() - begun < 9 + 240
    trials = read_sweep(run_dir).trials
    assert trials and {t.status for t in trials} == {"interrupted"}
    assert {t.reason for t in trials} == {"sweep.max_seconds=9"}
    wait_until_released()
    assert not (run_dir / STOP_FILE).exists()  # the winner is verified next


def test_a_trial_resumes_after_losing_its_process_and_others_are_not_disturbed(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {"train.batch_size": {"int": [2, 4]}},
        "scheduler": "none",
        "trials": 2,
        "known": [{"train.batch_size": 3}, {"train.batch_size": 4}],
        "default_first": False,
    }
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=5)
    search(plan, context, past, [], 2)
    trials = read_sweep(run_dir).trials
    assert [trial.status for trial in trials] == ["finished"] * 2
    for trial in trials:
        assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3, 4, 5]
    lines = (run_dir / "trials.jsonl").read_text().splitlines()
    begun = [e["trial"] for e in map(json.loads, lines) if e["event"] == "start"]
    assert begun.count(1) == 1


@pytest.mark.cost(6, "a search that begins twice")
def test_a_full_disk_ends_a_sweep_which_resumes_when_there_is_room(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "scheduler": "none", "trials": 2}
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=2)
    with small_disk(run_dir / "trials", "8k"), pytest.raises(Exception) as caught:
        search(plan, context, past, [], 1)
    full = find_disk_error(caught.value)
    assert full is not None and full.errno == errno.ENOSPC
    assert str(full.path).startswith(f"{run_dir}/trials/")
    assert {trial.status for trial in read_sweep(run_dir).trials} == {"interrupted"}
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=2)
    search(plan, context, past, [], 1)
    assert [trial.status for trial in read_sweep(run_dir).trials] == ["finished"] * 2


@pytest.mark.cost(10, "trials that start again")
def test_population_based_training_exchanges_weights(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    rates = [3e-3, 1e-6]  # the first learns; the second takes over its weights
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-6, 1e-2]}},
        "known": [{"train.learning_rate": rate} for rate in rates],
        "default_first": False,
        "trials": 2,
        "search": "random",
        "scheduler": "pbt",
        "grace_epochs": 20,
    }
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=60)
    search(plan, context, past, [], 2)
    result = read_sweep(run_dir)
    assert [t.status for t in result.trials] == ["finished"] * 2, [t.reason for t in result.trials]
    lines = (run_dir / "trials.jsonl").read_text().splitlines()
    taken = [e for e in map(json.loads, lines) if e.get("source") == "pbt"]
    assert taken
    number = taken[0]["trial"]
    following = run_dir / "trials" / f"{number:04d}-1"
    epochs = [line.epoch for line in read_epochs(following)]
    # The trial resumed from the other trial's weights of the epoch that was offered.
    assert epochs[0] in (21, 41)
    assert result.trials[number].epochs[-1].epoch == 60
    assert max(t.values["macro_f1"] for t in result.trials) > 0.5


def test_objectives_are_measured_on_a_model(
    version: DatasetVersion, tiny: Path, tmp_path: Path
) -> None:
    plain = settings(version.path.parents[2], {})
    model_dir = saved_model(tiny, tmp_path / "model")
    names = ("macro_f1", "latency_ms", "parameters", "ece")
    values = objective_values({"macro_f1": 0.5}, TrialModel(plain, model_dir, version), names)
    assert values["macro_f1"] == 0.5
    assert 0 < values["latency_ms"] < 1000
    assert values["parameters"] > 10_000 and 0 <= values["ece"] <= 1
    assert read_json(model_dir / "exports.json")["exports"]


def test_a_space_over_data_and_model_makes_its_own_versions(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {
            "model.max_length": {"choice": [16, 32]},
            "data.conflicts": {"choice": ["drop", "majority"]},
        },
        "known": [
            {"model.max_length": 16, "data.conflicts": "drop"},
            {"model.max_length": 32, "data.conflicts": "majority"},
        ],
        "scheduler": "none",
        "trials": 2,
        "default_first": False,
    }
    plan, context, past = sham_sweep(version, run_dir, sweep, epochs=1)
    search(plan, context, past, [], 2)
    versions = set()
    for trial in read_sweep(run_dir).trials:
        assert trial.status == "finished", trial.reason
        task = read_json(run_dir / "trials" / f"{trial.number:04d}" / "task.json")
        assert task["max_length"] == trial.params["model.max_length"]
        assert task["datasets"] == []  # the shared datasets have other rows
        own = DatasetVersion.find(
            task["version"],
            context.settings.workspace.versions(context.settings.data.name),
            "train.dataset",
        )
        assert own.manifest.config["conflicts"] == trial.params["data.conflicts"]
        versions.add(task["version"])
    assert len(versions) == 2 and version.version in versions


def test_more_workers_than_the_cluster_has_are_refused(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tune.concurrency import max_concurrent_trials

    plain = settings(version.path.parents[2], {}, num_workers=9)
    with pytest.raises(InputError, match=r"train\.num_workers=9"):
        max_concurrent_trials(plain.train)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert max_concurrent_trials(settings(version.path.parents[2], {}).train) == 2
