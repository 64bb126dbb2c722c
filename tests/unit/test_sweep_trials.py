"""The budget of a search, failures of trials, and weights of a population. No Ray cluster."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finsent.errors import DivergenceError, InputError, MemoryShortageError
from finsent.modeling.backbone import Backbone
from tests.unit import sweeps
from tune.budget import Budget, spent_seconds
from tune.findings import without_value
from tune.plan import make_plan
from tune.records import (
    TrainedModel,
    read_sweep,
)
from tune.stats import driver_share
from tune.sweep import search
from tune.trial import _Reports
from tune.trial_failure import failure_cause, failure_reason
from tune.tuner import memory_share
from tune.weight_exchange import with_params

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return sweeps.tiny_backbone(tmp_path)


def test_a_search_ends_at_its_limits(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()  # of an earlier try
    assert not Budget(sweeps.tiny_settings().sweep, 10**6, 10**6, stop).stop_all()
    epochs = Budget(sweeps.tiny_settings(max_epochs=5).sweep, 4, 0, stop)
    assert not epochs.stop_all() and not stop.exists()
    epochs.epochs += 1
    assert epochs.stop_all() and epochs.reason == "sweep.max_epochs=5"
    assert stop.exists()
    assert Budget(sweeps.tiny_settings(max_seconds=9).sweep, 0, 9.5, stop).reason is None
    assert Budget(sweeps.tiny_settings(max_seconds=9).sweep, 0, 9.5, stop).stop_all()
    ended = Budget(sweeps.tiny_settings().sweep, 0, 0, stop)
    ended.end()
    assert ended.stop_all() and ended.reason is None


def test_epochs_of_earlier_starts_count(
    tmp_path: Path, backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    events = [sweeps.start(0, 1.0, {}), sweeps.epoch(0, 2.0, 1, 0.5), sweeps.epoch(0, 3.0, 2, 0.5)]
    past = read_sweep(sweeps.write(tmp_path / "run", events, finished=None))
    plan = make_plan(sweeps.tiny_settings(max_epochs=2), backbone)
    nothing: Any = None  # no trial is started
    with caplog.at_level(logging.INFO):
        search(plan, nothing, past, [], 1, trainable=nothing)
    assert "its budget was spent before (sweep.max_epochs=2)" in caplog.text


def test_seconds_of_earlier_starts_count_without_the_pauses(tmp_path: Path) -> None:
    events = [
        sweeps.start(0, 110.0, {}),
        sweeps.epoch(0, 130.0, 1, 0.5),  # killed
        sweeps.start(0, 1010.0, {}),
        sweeps.end(0, 1040.0, 2, 0.6),
    ]
    folder = sweeps.write(tmp_path, events, attempts=[100.0, 1000.0, 5000.0])
    assert spent_seconds(read_sweep(folder)) == pytest.approx(30 + 40)


def test_the_drivers_share_is_the_time_between_trials(tmp_path: Path) -> None:
    events = []
    for number, (start, stop) in enumerate([(0, 10), (0, 20), (11, 31), (22, 40)]):
        events += [sweeps.start(number, start, {}), sweeps.end(number, stop, 1, 0.5)]
    sweep = read_sweep(sweeps.write(tmp_path, events))
    assert driver_share(sweep) == pytest.approx((1 + 2) / (10 + 20 + 20 + 18))
    pause = read_sweep(sweeps.write(tmp_path, events, attempts=[0.0, 10.5]))
    assert driver_share(pause) == pytest.approx(2 / 68)


def test_a_reason_is_the_innermost_cause_in_one_line() -> None:
    inner = InputError("train.learning_rate=0.5: the loss is\n  not finite")
    outer = RuntimeError("Training failed")
    outer.worker_failures = {0: inner}  # type: ignore[attr-defined]
    assert failure_reason(outer) == "train.learning_rate=0.5: the loss is not finite"
    assert failure_reason(MemoryError("no room")) == "MemoryError: no room"
    assert len(failure_reason(ValueError("x" * 1000))) == 300


def test_divergence_and_memory_are_causes_of_the_settings() -> None:
    class TrainingFailedError(RuntimeError):
        """As Ray Train's."""

        def __init__(self, failure: Exception) -> None:
            super().__init__("Training failed")
            self.worker_failures = {0: failure}

    assert (
        failure_cause(TrainingFailedError(DivergenceError("the loss is not a finite number")))
        == "diverged"
    )
    assert failure_cause(MemoryShortageError("no room for one row")) == "memory"
    assert failure_cause(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    for other in (InputError("train.cpus_per_worker=64"), MemoryError(), RuntimeError("NCCL")):
        assert failure_cause(TrainingFailedError(other)) is None


@pytest.mark.parametrize("name", ["macro_f1", "latency_ms"])
def test_a_final_value_that_is_not_finite_is_a_divergence(name: str) -> None:
    context: Any = SimpleNamespace(metric="macro_f1")
    values = {"macro_f1": 0.5, "latency_ms": 5.0, name: math.nan}
    with pytest.raises(DivergenceError, match=f"{name} is not a finite number"):
        _Reports(context).finished(TrainedModel(final=values, model_dir="model"))


def test_a_sweep_without_any_value_is_an_error(tmp_path: Path, backbone: Backbone) -> None:
    why = (
        "train.learning_rate=0.9: the loss is not a finite number in epoch 1; last good checkpoint"
    )
    events = [
        sweeps.start(0, 0.0, {"train.learning_rate": 0.9}),
        sweeps.end(0, 1.0, 0, None, status="diverged", cause="diverged", reason=f"{why}: none"),
    ]
    plan = make_plan(sweeps.tiny_settings(), backbone)
    message = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "one", events))))
    assert message == (
        "sweep.space.train.learning_rate={'loguniform': [1e-05, 0.01]}: the only trial diverged "
        f"(e.g. {why.partition(';')[0]}). Set a lower rate under another run.name."
    )
    other = [sweeps.start(1, 0.0, {}), sweeps.end(1, 1.0, 0, None, status="failed", reason="lost")]
    two = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "two", events + other))))
    assert two.startswith("sweep: not one of 2 trials has a value (1 diverged, 1 failed; first: ")
    none = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "none", []))))
    assert "none was started" in none


def test_new_settings_after_a_kill_continue_in_a_new_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_dir = tmp_path / "0003"
    trial_dir.mkdir()

    def take_over(source: Path, base: Path) -> Path:
        assert (source, base) == (trial_dir, trial_dir)
        (tmp_path / "0003-1").mkdir()
        return tmp_path / "0003-1"

    monkeypatch.setattr("tune.weight_exchange._take_over", take_over)
    assert with_params(trial_dir, trial_dir, {"train.dropout": 0.1}) == trial_dir
    assert with_params(trial_dir, trial_dir, {"train.dropout": 0.1}) == trial_dir
    following = with_params(trial_dir, trial_dir, {"train.dropout": 0.2})
    assert following == tmp_path / "0003-1"
    assert with_params(following, trial_dir, {"train.dropout": 0.2}) == following


def test_memory_shares_fit_on_single_machines() -> None:
    assert memory_share([12], 3) == 4
    assert memory_share([10, 10, 10], 2) == 10  # half of all would fit on none
    assert memory_share([10, 10], 3) == 10
    assert memory_share([16, 4], 5) == 4
