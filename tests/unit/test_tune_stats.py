"""Figures of sweeps whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit import sweeps
from tune.importance import FRONT, importances, pareto_front
from tune.records import Sweep, read_sweep
from tune.stats import (
    at_edge,
    axis_of,
    best_so_far,
    failure_notes,
    ranked,
    savings,
    short_names,
    smoothed,
    trial_count_note,
    trials_table,
    trials_with_values,
)

pytestmark = pytest.mark.cost(1.5, "estimates importances")


def four(tmp_path: Path, **changes: object) -> Sweep:
    """Finished at 0.6, stopped at 0.4, failed above all, still running at 0.7."""
    events = [
        sweeps.start(0, 0.0, {"train.dropout": 0.1}),
        sweeps.start(1, 0.0, {"train.dropout": 0.2, "train.lora_rank": 8}),
        sweeps.epoch(0, 10.0, 1, 0.5),
        sweeps.epoch(1, 10.0, 1, 0.4),
        sweeps.end(1, 10.5, 1, 0.4, status="stopped"),
        sweeps.start(2, 11.0, {"train.dropout": 0.3}),
        sweeps.epoch(2, 15.0, 1, 0.99),
        sweeps.end(2, 16.0, 1, None, status="failed", reason="NaN"),
        sweeps.epoch(0, 20.0, 2, 0.6),
        sweeps.end(0, 20.0, 2, 0.6),
        sweeps.start(3, 21.0, {"train.dropout": 0.4}),
        sweeps.epoch(3, 30.0, 1, 0.7),
    ]
    return read_sweep(sweeps.write(tmp_path, events, finished=None, max_epochs=4, **changes))


def test_a_diverged_trial_has_no_value(tmp_path: Path) -> None:
    """Also where it had the best epoch of all before."""
    events = []
    for number, rate in enumerate((1e-4, 0.3, 0.9)):
        status = (
            {"status": "diverged", "cause": "diverged", "reason": "no number"} if number else {}
        )
        events += [
            sweeps.start(number, number, {"train.learning_rate": rate}),
            sweeps.epoch(number, number, 1, 0.5 + number / 10),
            sweeps.end(number, number + 0.5, 1, None if number else 0.5, **status),
        ]
    sweep = read_sweep(sweeps.write(tmp_path, events))
    assert [(value, trial.number) for value, trial in ranked(sweep)] == [(0.5, 0)]
    assert [t.number for t in trials_with_values(sweep, sweep.objectives)] == [0]
    assert best_so_far(sweep)["best"].max() == 0.5
    assert (savings(sweep).epochs, savings(sweep).other_epochs) == (1, 2)
    [line] = failure_notes(sweep)
    assert line == (
        "2 of 3 trials diverged, all with: no number. The lowest train.learning_rate of them is "
        "0.3: end its range below."
    )


def test_fewer_trials_than_configured_are_explained(tmp_path: Path) -> None:
    events = [{"event": "repeat", "trial": 0, "time": 0.0}, sweeps.start(0, 1.0, {})]
    once = trial_count_note(read_sweep(sweeps.write(tmp_path / "a", events)))
    assert once == ("1 suggestion was not trained again: an earlier trial had the same settings.")
    none = read_sweep(sweeps.write(tmp_path / "b", events[1:], trials=1))
    assert trial_count_note(none) is None and none.repeated == 0
    left = read_sweep(sweeps.write(tmp_path / "c", events[1:], trials=9, exhausted=True))
    assert (
        trial_count_note(left)
        == "1 of 9 trials were trained: sweep.space has no further configuration."
    )


def test_best_so_far(tmp_path: Path) -> None:
    course = best_so_far(four(tmp_path))
    assert course["seconds"].tolist() == [10.0, 10.0, 10.5, 15.0, 16.0, 20.0, 20.0, 30.0]
    assert course["epochs"].tolist() == [1, 2, 2, 3, 3, 4, 4, 5]
    assert course["best"].tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.7]
    assert course["trial"].tolist() == [0, 0, 0, 0, 0, 0, 0, 3]


def test_best_so_far_of_a_loss(tmp_path: Path) -> None:
    loss = {"metric": "loss", "mode": "min", "objectives": [{"name": "loss", "mode": "min"}]}
    course = best_so_far(four(tmp_path, **loss))
    assert course["best"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.3])


def test_savings(tmp_path: Path) -> None:
    saved = savings(four(tmp_path))
    assert (saved.trials, saved.stopped) == (2, 1)
    assert (saved.epochs, saved.full_epochs, saved.saved_epochs) == (3, 8, 5)
    assert (saved.seconds, saved.full_seconds, saved.saved_seconds) == (30.0, 80.0, 50.0)
    assert (saved.other_epochs, saved.share) == (2, 3 / 8)


def test_a_varied_number_of_epochs_sets_the_full_epochs(tmp_path: Path) -> None:
    events = [
        sweeps.start(0, 0.0, {"train.epochs": 2}),
        sweeps.epoch(0, 10.0, 1, 0.5),
        sweeps.epoch(0, 20.0, 2, 0.5),
        sweeps.end(0, 20.0, 2, 0.5),
        sweeps.start(1, 0.0, {"train.epochs": 30}),
        sweeps.epoch(1, 10.0, 1, 0.5),
        sweeps.end(1, 20.0, 1, 0.5, status="stopped"),
    ]
    assert savings(read_sweep(sweeps.write(tmp_path, events))).full_epochs == 2 + 8


def test_order_and_table(tmp_path: Path) -> None:
    sweep = four(tmp_path)
    assert [(value, trial.number) for value, trial in ranked(sweep)] == [
        (0.7, 3),
        (0.6, 0),
        (0.4, 1),
    ]
    table = trials_table(sweep)
    assert table["trial"].tolist() == [3, 0, 1, 2]
    assert table["macro_f1"].tolist() == [0.7, 0.6, 0.4, None]
    assert table["train.lora_rank"].tolist() == [None, None, 8, None]
    assert table["reason"].tolist()[-1] == "NaN"


def test_importance_finds_the_only_parameter_that_matters(tmp_path: Path) -> None:
    importance = importances(read_sweep(sweeps.write(tmp_path, sweeps.drawn(120))))
    table = importance.table.set_index("parameter")
    assert importance.order("macro_f1")[0] == "train.learning_rate"
    assert table["importance"].sum() == pytest.approx(1)
    assert table["importance"]["train.learning_rate"] > 0.7
    assert table["importance"]["train.learning_rate"] > 3 * table["chance"]["train.learning_rate"]
    assert importance.note == ""
    assert (
        table["trials"]["train.lora_rank"] < table["trials"]["train.dropout"] == importance.trials
    )


def test_importance_of_each_objective_and_of_the_front(tmp_path: Path) -> None:
    two = [{"name": "macro_f1", "mode": "max"}, {"name": "latency_ms", "mode": "min"}]
    events = sweeps.drawn(120, latency=True)
    importance = importances(read_sweep(sweeps.write(tmp_path, events, objectives=two)))
    assert importance.order("macro_f1")[0] == "train.learning_rate"
    assert importance.order("latency_ms")[0] == "train.lora_rank"
    assert set(importance.order(FRONT)[:2]) == {"train.learning_rate", "train.lora_rank"}


@pytest.mark.parametrize(("trials", "words"), [(1, "too few"), (9, "too few"), (30, "a hint")])
def test_few_trials_have_a_note(tmp_path: Path, trials: int, words: str) -> None:
    importance = importances(read_sweep(sweeps.write(tmp_path, sweeps.drawn(trials))))
    assert words in importance.note
    assert importance.table.empty == (words == "too few")


def test_equal_values_and_constant_parameters_have_no_importance(tmp_path: Path) -> None:
    events = [
        e for n in range(12) for e in (sweeps.start(n, n, {"a": 1}), sweeps.end(n, n, 1, 0.5))
    ]
    assert importances(read_sweep(sweeps.write(tmp_path, events, space={}))).table.empty
    events = [
        e for n in range(12) for e in (sweeps.start(n, n, {"a": 1}), sweeps.end(n, n, 1, 0.1 * n))
    ]
    importance = importances(read_sweep(sweeps.write(tmp_path, events, space={})))
    assert "nothing to compare" in importance.note


def test_the_pareto_front(tmp_path: Path) -> None:
    values = [
        (0.9, 50.0),
        (0.8, 20.0),
        (0.7, 30.0),
        (0.6, 10.0),
        (0.95, 60.0),
    ]  # the third is beaten
    events = []
    for n, (f1, latency) in enumerate(values):
        ends = {"macro_f1": f1, "latency_ms": latency}
        events += [sweeps.start(n, n, {}), sweeps.end(n, n, 1, f1, values=ends)]
    events += [sweeps.start(5, 5, {}), sweeps.end(5, 5, 1, 0.99)]  # has no latency
    two = [{"name": "macro_f1", "mode": "max"}, {"name": "latency_ms", "mode": "min"}]
    sweep = read_sweep(sweeps.write(tmp_path, events, objectives=two))
    assert pareto_front(sweep) == [3, 1, 0, 4]


def test_axes(tmp_path: Path) -> None:
    params = {"train.learning_rate": 1e-2, "train.schedule": "other", "free": [1, None]}
    sweep = read_sweep(sweeps.write(tmp_path, [sweeps.start(0, 0.0, params)]))
    rate = axis_of(sweep, "train.learning_rate")
    assert (rate.log, rate.low, rate.high) == (True, 1e-5, 1e-2)  # a known point outside the space
    assert rate.position(1e-5) == 0 and rate.position(10**-3.5) == pytest.approx(0.5)
    assert rate.position(None) is None
    assert axis_of(sweep, "train.schedule").categories == ("linear", "cosine", "constant", "other")
    assert axis_of(sweep, "free").categories == ("[1, null]",)
    assert at_edge(rate, 9e-3) == "upper" and at_edge(rate, 1e-4) is None


def test_names() -> None:
    keys = ["train.seed", "data.seed", "train.dropout"]
    assert list(short_names(keys).values()) == ["train.seed", "data.seed", "dropout"]


def test_a_smooth_surface_follows_a_slope_and_is_open_far_from_points() -> None:
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 0.5, (2, 400))
    surface = smoothed(x, y, 3 * x, cells=21)
    assert surface[5, 5] == pytest.approx(0.75, abs=0.1)  # x = y = 0.25
    assert np.isnan(surface[20, 20])
