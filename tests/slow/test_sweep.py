"""Sweeps with trainings on a real Ray; tests with sham trainings are in `tests.integration`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from finsent.data.versions.dataset import DatasetVersion
from finsent.files import read_json
from finsent.training.metrics_log import read_epochs
from tests.integration.sweeping import make_version, training_sweep, wait_until_released
from tune.records import read_sweep
from tune.sweep import search
from tune.trial import STOP_FILE

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return make_version(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.parametrize("seconds", [6, 20], ids="in {} s".format)  # starting, or training
def test_trials_that_are_running_at_the_time_limit_release_all_resources(
    version: DatasetVersion, tmp_path: Path, seconds: int
) -> None:
    """The fast test of the same name has sham trainings."""
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 50, "max_seconds": seconds}
    plan, context, past = training_sweep(version, run_dir, sweep, epochs=1000, batch_size=1)
    begun = time.monotonic()
    search(plan, context, past, [], 2)
    assert time.monotonic() - begun < seconds + 240
    trials = read_sweep(run_dir).trials
    assert trials or seconds < 20  # Ray Tune may not have started a trial
    assert {t.status for t in trials} <= {"interrupted"}
    wait_until_released()
    assert not (run_dir / STOP_FILE).exists()  # the winner is verified next


@pytest.mark.timeout(1500)
def test_population_based_training_exchanges_weights(
    version: DatasetVersion, tmp_path: Path
) -> None:
    """The fast test of the same name has sham trainings."""
    run_dir = tmp_path / "run"
    rates = [3e-3, 1e-6]  # the first learns; the second takes over its weights
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-6, 1e-2]}},
        "known": [{"train.learning_rate": rate} for rate in rates],
        "default_first": False,
        "trials": 2,
        "search": "random",
        "scheduler": "pbt",
        "grace_epochs": 40,
    }
    # Enough epochs that both train at the same time, though one starts some seconds later.
    plan, context, past = training_sweep(version, run_dir, sweep, epochs=160, batch_size=4)
    search(plan, context, past, [], 2)
    found = read_sweep(run_dir)
    assert [t.status for t in found.trials] == ["finished"] * 2, [t.reason for t in found.trials]
    lines = (run_dir / "trials.jsonl").read_text().splitlines()
    taken = [e for e in map(json.loads, lines) if e.get("source") == "pbt"]
    assert taken
    number = taken[0]["trial"]
    following = run_dir / "trials" / f"{number:04d}-1"
    epochs = [line.epoch for line in read_epochs(following)]
    # The trial resumed from the other trial's weights of the epoch that was offered.
    assert epochs[0] in (41, 81, 121)
    assert found.trials[number].epochs[-1].epoch == 160
    assert max(t.values["macro_f1"] for t in found.trials) > 0.5


def test_objectives_are_measured_on_models_of_versions_of_their_own(
    version: DatasetVersion, tmp_path: Path
) -> None:
    """Fast, with sham trainings: test_objectives_are_recorded_..., test_a_space_over_...

    Fast, with a model: test_objectives_are_measured_on_a_model.
    """
    run_dir = tmp_path / "run"
    sweep = {
        "space": {
            "model.max_length": {"choice": [16, 32]},
            "data.conflicts": {"choice": ["drop", "majority"]},
        },
        "objectives": ["latency_ms", "parameters", "ece"],
        "scheduler": "none",
        "trials": 2,
        "default_first": False,
    }
    plan, context, past = training_sweep(version, run_dir, sweep, epochs=1)
    search(plan, context, past, [], 2)
    for trial in read_sweep(run_dir).trials:
        assert trial.status == "finished", trial.reason
        assert 0 < trial.values["latency_ms"] < 1000
        assert trial.values["parameters"] > 10_000 and 0 <= trial.values["ece"] <= 1
        config = read_json(run_dir / "trials" / f"{trial.number:04d}" / "task.json")
        assert config["max_length"] == trial.params["model.max_length"]
    exports = read_json(run_dir / "trials" / "0000" / "model" / "exports.json")
    assert exports["exports"]
