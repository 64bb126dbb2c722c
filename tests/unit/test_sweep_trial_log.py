"""Writing the records of a sweep's trials. No Ray cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finsent.disk import DiskError
from finsent.errors import InputError
from tests.disks import file_limit
from tests.unit import sweeps
from tune.records import (
    Trial,
    kept_value,
    read_sweep,
)
from tune.trial import trial_name
from tune.trial_events import EpochEnded, Event, TrialEnded, TrialStarted
from tune.trial_log import TrialLog, TrialLogCallback, best_values, lock_run_dir

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


def _callback(
    folder: Path, past: list[Trial] | None = None
) -> tuple[TrialLogCallback, list[Event]]:
    events: list[Event] = []
    callback = TrialLogCallback(
        TrialLog(folder), {"macro_f1": "max"}, past or [], "asha", events.append
    )
    return callback, events


def _tune_trial(number: int, **result: Any) -> Any:
    config = {"number": number, "params": {"train.dropout": 0.1}, "source": "search"}
    name = trial_name(number)
    return SimpleNamespace(
        config=config, last_result=result, error_file=None, custom_trial_name=name
    )


def test_written_trials_are_read_back(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, events = _callback(tmp_path)
    ways: list[tuple[int, dict[str, Any]]] = [
        (0, {"final": {"macro_f1": 0.7}, "model_dir": "m"}),
        (1, {"epoch": 2, "macro_f1": 0.4}),
        (2, {"failure": "CUDA out of memory", "cause": "memory", "macro_f1": -1e9}),
        (5, {"failure": "the loss is no number", "cause": "diverged", "macro_f1": -1e9}),
    ]
    for number, last in ways:
        trial = _tune_trial(number, **last)
        callback.on_trial_start(trial=trial)
        for epoch in (1, 2):
            result = {"epoch": epoch, "macro_f1": 0.6 - epoch / 10, "epoch_seconds": 2.0}
            callback.on_trial_result(trial=trial, result=result)
            callback.on_trial_result(trial=trial, result=result)  # told twice, written once
        callback.on_trial_complete(trial=trial)
    lost = _tune_trial(3)
    callback.on_trial_start(trial=lost)
    callback.on_trial_error(trial=lost)
    running = _tune_trial(4)
    callback.on_trial_start(trial=running)
    callback.interrupt("SIGTERM")
    trials = read_sweep(tmp_path).trials
    assert [t.status for t in trials] == [
        "finished",
        "stopped",
        "failed",
        "failed",
        "interrupted",
        "diverged",
    ]
    assert [t.values for t in trials] == [{"macro_f1": 0.7}, {"macro_f1": 0.5}, {}, {}, {}, {}]
    assert [t.cause for t in trials] == [None, None, "memory", None, None, "diverged"]
    assert trials[1].reason == "asha, after epoch 2"
    assert (trials[2].reason, trials[4].reason) == ("CUDA out of memory", "SIGTERM")
    assert [e.seconds for e in trials[0].epochs] == [2.0, 2.0]
    assert len([event for event in events if isinstance(event, EpochEnded)]) == 8


def test_a_trial_that_never_started_fails(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, _ = _callback(tmp_path)
    callback.on_trial_error(trial=_tune_trial(0))
    [trial] = read_sweep(tmp_path).trials
    assert (trial.status, trial.reason) == ("failed", "its process was lost")


def test_a_trials_value_is_that_of_the_kept_epoch() -> None:
    scores = [(0.5, 0.9), (0.7, 1.0), (0.7, 1.1), (0.6, 0.8)]
    epochs = [{"macro_f1": f1, "validation_loss": loss} for f1, loss in scores]
    assert kept_value(epochs, "validation_loss", "min") == 1.1
    assert kept_value(epochs, "macro_f1", "max") == 0.7
    by_number = dict(enumerate(epochs, 1))
    assert best_values(by_number, {"validation_loss": "min"}) == {"validation_loss": 1.1}
    assert kept_value([{"loss": 1.0}, {"loss": 0.5}], "loss", "min") == 0.5
    assert kept_value([], "macro_f1", "max") is None


def test_an_exchange_is_recorded_as_a_start(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, events = _callback(tmp_path)
    trial = _tune_trial(0)
    callback.on_trial_start(trial=trial)
    trial.config = {**trial.config, "params": {"train.dropout": 0.3}}
    callback.on_trial_start(trial=trial)
    sources = [event.source for event in events if isinstance(event, TrialStarted)]
    assert sources == ["search", "pbt"]
    assert read_sweep(tmp_path).trials[0].params == {"train.dropout": 0.3}


def test_epochs_of_an_earlier_process_are_not_written_again(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {}), sweeps.epoch(0, 2.0, 1, 0.5)], finished=None)
    callback, events = _callback(tmp_path, read_sweep(tmp_path).trials)
    trial = _tune_trial(0)
    callback.on_trial_start(trial=trial)
    for epoch in (1, 2):
        callback.on_trial_result(trial=trial, result={"epoch": epoch, "macro_f1": 0.5})
    assert [event.event for event in events] == ["start", "epoch"]
    assert [e.epoch for e in read_sweep(tmp_path).trials[0].epochs] == [1, 2]


def test_an_incomplete_line_is_cut_off_before_an_append(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})], finished=None)
    with (tmp_path / "trials.jsonl").open("ab") as stream:
        stream.write(b'{"event": "epo')
    TrialLog(tmp_path).write(TrialStarted(trial=1, time=2.0, params={}, source="search"))
    assert [t.number for t in read_sweep(tmp_path).trials] == [0, 1]


def test_an_event_on_a_full_disk_leaves_the_file_as_before(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})], finished=None)
    trial_log = TrialLog(tmp_path)
    event = TrialEnded(trial=0, time=2.0, status="finished", epochs=0)
    before = (tmp_path / "trials.jsonl").read_bytes()
    with file_limit(len(before) + 20), pytest.raises(DiskError, match="too large"):
        trial_log.write(event)
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    trial_log.write(event)
    assert [trial.status for trial in read_sweep(tmp_path).trials] == ["finished"]


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path) -> None:
    with (
        lock_run_dir(tmp_path),
        pytest.raises(InputError, match="a sweep runs there"),
        lock_run_dir(tmp_path),
    ):
        pass
    with lock_run_dir(tmp_path):
        assert (tmp_path / ".lock").exists()
