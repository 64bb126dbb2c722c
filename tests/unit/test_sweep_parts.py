"""Plan, schedulers, records written, verification: what needs no Ray cluster."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.tune.schedulers import TrialScheduler

from finsent.adapters.ray_core import Node
from finsent.cluster import Cluster
from finsent.config import check
from finsent.disk import DiskError
from finsent.errors import ConfigError, DivergenceError, InputError, MemoryShortageError
from finsent.modeling.backbone import Backbone, resolve_backbone
from ray_jobs._cli import main
from ray_jobs._settings import JobSettings
from ray_jobs.sweep import JOB, without_value
from tests.disks import file_limit
from tests.unit import sweeps
from tune.cost import expected_epochs, samples
from tune.ledger import Ledger, LedgerCallback, best_values, locked
from tune.plan import begin, end, make_plan
from tune.records import Epoch, Trial, kept_value, read_sweep
from tune.schedulers import scheduler_of
from tune.stats import driver_share
from tune.sweep import Budget, search, share_of, spent_seconds
from tune.trial import _Reports, _settled, cause, reason, trial_name
from tune.verify import _keep_model, candidates, conclude

pytestmark = pytest.mark.cost(1.5, "asks Ray Tune's schedulers")

SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-2]},
    "train.batch_size": {"choice": [16, 32]},
}


def settings(**sweep: Any) -> JobSettings:
    values = {"sweep": {"space": SPACE, **sweep}, "model": {"backbone": "tiny"}}
    return check(JobSettings, values)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return resolve_backbone(settings().model, tmp_path / "backbones")


# --- plan ---------------------------------------------------------------------------------------


def test_the_settings_as_they_are_come_first(backbone: Backbone) -> None:
    known = {"train.learning_rate": 1e-4, "train.batch_size": 16}
    plan = make_plan(settings(known=[known]), backbone)
    assert plan.default == {"train.learning_rate": backbone.learning_rate, "train.batch_size": 32}
    assert plan.first == [plan.default, known]
    assert make_plan(settings(default_first=False), backbone).first == []
    outside = {"train.batch_size": {"choice": [8, 16]}}
    assert make_plan(settings(space=outside), backbone).first == []


def test_epochs_in_the_space_set_the_longest_trial(backbone: Backbone) -> None:
    plan = make_plan(settings(space={**SPACE, "train.epochs": {"int": [2, 9]}}), backbone)
    assert plan.epochs == 9


@pytest.mark.parametrize(
    ("sweep", "problem"),
    [
        ({"space": {}}, r"sweep\.space: is empty"),
        ({"space": {"train.dropuot": {"uniform": [0, 0.5]}}}, "train.dropout"),
        ({"space": {"train.dropout": {"uniform": [0.5, 0.1]}}}, "lower bound above"),
        ({"space": {"train.dropout": {"uniform": [0.1, 0.1]}}}, "is empty"),
        ({"known": [{"train.learning_rate": 1e-4}]}, "batch_size is missing"),
        (
            {"scheduler": "pbt", "search": "random", "space": {"train.epochs": {"int": [1, 4]}}},
            "scheduler=pbt takes weights",
        ),
    ],
)
def test_bad_plans(sweep: dict[str, Any], problem: str, backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_plan(settings(**sweep), backbone)


@pytest.mark.parametrize(
    ("sweep", "problem"),
    [
        ({"metric": "f1"}, "training never reports it"),
        ({"objectives": ["speed"]}, "latency_ms"),
        ({"objectives": ["parameters"]}, "set scheduler=none"),
        ({"objectives": ["ece"], "scheduler": "none", "search": "gp"}, "one objective only"),
        ({"scheduler": "pbt"}, "set search=random"),
        ({"scheduler": "pbt", "search": "random", "trials": 1}, "two trials or more"),
        ({"publish": "challenger", "verify_best": 0}, "only a verified"),
        ({"storage": "sqlite://"}, "lost with the process"),
        ({"trials": 0}, "trials"),
    ],
)
def test_settings_that_contradict(sweep: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings(**sweep)


def test_a_share_of_a_gpu_is_of_one() -> None:
    def on(share: float, **resources: float) -> int:
        cluster = Cluster([Node("1", "a", resources)])
        return cluster.slots(2, share if "GPU" in resources else 0.0)

    assert on(0.6, CPU=64, GPU=2) == 2  # not the three that two GPUs hold by their sum
    assert on(0.3, CPU=64, GPU=2) == 6
    assert on(0.25, CPU=4, GPU=1) == 2
    assert on(1.0, CPU=5) == 2


def test_room_is_for_the_widest_trial(backbone: Backbone) -> None:
    of = {"train.num_workers": {"choice": [1, [1, 4]]}, "train.cpus_per_worker": {"int": [1, 3]}}
    widest = make_plan(settings(space=of), backbone).widest
    assert (widest.max_workers, widest.cpus_per_worker) == (4, 3)
    assert make_plan(settings(), backbone).widest == settings().train


def test_a_sweep_goes_on_only_under_its_own_settings(tmp_path: Path, backbone: Backbone) -> None:
    begin(make_plan(settings(), backbone), tmp_path, "v1", 2)
    end(tmp_path)
    again = begin(make_plan(settings(trials=40), backbone), tmp_path, "v1", 2)
    assert not again.finished and len(again.settings["attempts"]) == 2
    for changed in (settings(seed=7), settings(scheduler="none"), settings(metric="accuracy")):
        with pytest.raises(ConfigError, match="only under its own settings"):
            begin(make_plan(changed, backbone), tmp_path, "v1", 2)
    with pytest.raises(ConfigError, match="dataset_version"):
        begin(make_plan(settings(), backbone), tmp_path, "v2", 2)
    longer = settings()
    longer = longer.replaced(train=longer.train.replaced(epochs=9))
    with pytest.raises(ConfigError, match=r"train\.epochs=4, now 9"):
        begin(make_plan(longer, backbone), tmp_path, "v1", 2)


def test_a_refused_call_leaves_the_sweep_as_it_is(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "runs" / "mine"
    run_dir.mkdir(parents=True)
    begin(make_plan(settings(), backbone), run_dir, "v1", 2)
    (run_dir / "result.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    space = f"sweep.space={json.dumps(SPACE)}"
    arguments = [f"storage.root={tmp_path}", "run.name=mine", "model.backbone=tiny", space]
    with pytest.raises(SystemExit) as left:
        main(JOB, [*arguments, "sweep.seed=7"])
    assert left.value.code == 2
    assert "sweep.seed=42, now 7" in capsys.readouterr().err
    with locked(run_dir), pytest.raises(SystemExit):
        main(JOB, arguments)
    after = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != ".lock"}
    assert after == before


# --- schedulers and cost ------------------------------------------------------------------------


NOBODY: Any = None  # in the place of Ray Tune's controller


def _trial(name: str) -> Any:
    return SimpleNamespace(trial_id=name)


def test_asha_goes_on_with_what_it_knew(backbone: Backbone) -> None:
    plan = make_plan(settings(reduction=3), backbone)
    past = [
        Trial(n, {}, "stopped", epochs=[Epoch(1, 0.0, {"macro_f1": 0.7}, None)]) for n in range(3)
    ]

    def first(value: float, known: list[Trial]) -> str:
        scheduler = scheduler_of(plan.config, plan.space, 9, known)
        scheduler.on_trial_add(NOBODY, _trial("new"))
        return scheduler.on_trial_result(NOBODY, _trial("new"), {"epoch": 1, "macro_f1": value})

    assert first(0.6, []) == TrialScheduler.CONTINUE  # nothing to compare with
    assert first(0.6, past) == TrialScheduler.STOP
    assert first(0.8, past) == TrialScheduler.CONTINUE


def test_a_trial_that_goes_on_is_not_judged_again_where_it_has_passed(backbone: Backbone) -> None:
    plan = make_plan(settings(), backbone)
    begun = Trial(0, {}, "running", epochs=[Epoch(n, 0, {"macro_f1": 0.5}, None) for n in (1, 2)])
    above = [Epoch(1, 0, {"macro_f1": 0.7}, None)]
    better = [Trial(n, {}, "finished", epochs=above) for n in (1, 2, 3)]
    scheduler = scheduler_of(plan.config, plan.space, 9, [begun, *better])

    def judged(number: int, *values: float) -> list[str]:
        trial: Any = SimpleNamespace(trial_id=f"new-{number}", config={"number": number})
        scheduler.on_trial_add(NOBODY, trial)
        results = [{"epoch": epoch, "macro_f1": value} for epoch, value in enumerate(values, 1)]
        return [scheduler.on_trial_result(NOBODY, trial, result) for result in results]

    assert judged(0, 0.5, 0.5, 0.6, 0.7) == [TrialScheduler.CONTINUE] * 4
    assert judged(4, 0.5) == [TrialScheduler.STOP]
    assert judged(5, 0.8, 0.8, 0.8, 0.6)[-1] == TrialScheduler.STOP  # trial 0 reached 0.7 there


def test_median_stopping_pauses_no_trial_for_another(backbone: Backbone) -> None:
    plan = make_plan(settings(scheduler="median"), backbone)
    scheduler = scheduler_of(plan.config, plan.space, 4, [])
    waiting: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])

    class Named:
        trial_id = "a"

    trial: Any = Named()
    scheduler.on_trial_add(waiting, trial)
    result = {"epoch": 1, "macro_f1": 0.5}
    assert scheduler.on_trial_result(waiting, trial, result) == TrialScheduler.CONTINUE


def test_no_scheduler_ends_a_trial_at_its_last_epoch(backbone: Backbone) -> None:
    for name in ("asha", "hyperband"):
        plan = make_plan(settings(scheduler=name), backbone)
        scheduler = scheduler_of(plan.config, plan.space, 4, [])
        scheduler.on_trial_add(NOBODY, _trial("a"))
        for epoch in range(1, 5):
            result = {"epoch": epoch, "macro_f1": 0.5 + epoch / 100}
            assert scheduler.on_trial_result(NOBODY, _trial("a"), result) == TrialScheduler.CONTINUE


def test_population_based_training_stays_in_the_space(backbone: Backbone) -> None:
    of = {**SPACE, "train.warmup_steps": {"int": [0, 10]}}
    of["train.layer_decay"] = {"quantized": [0.7, 1.0, 0.1]}
    plan = make_plan(settings(space=of, scheduler="pbt", search="random"), backbone)
    scheduler: Any = scheduler_of(plan.config, plan.space, 4, [])
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


class Population:
    """A trial of Ray Tune's, and a controller that has another one waiting."""

    def __init__(self) -> None:
        keeps = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.run_metadata = SimpleNamespace(checkpoint_manager=keeps)
        self.config: dict[str, Any] = {"trial": {}}
        self.status, self.search_alg, self.experiment_tag = "RUNNING", None, ""

    def is_finished(self) -> bool:
        return False

    def get_trials(self) -> list[Any]:
        return [SimpleNamespace(status="PENDING")]


def test_weights_are_exchanged_where_they_stay_and_while_there_is_something_to_train(
    backbone: Backbone,
) -> None:
    plan = make_plan(settings(scheduler="pbt", search="random", grace_epochs=2), backbone)
    found = []
    for first in (1, 3):  # a trial that goes on begins later
        scheduler = scheduler_of(plan.config, plan.space, 6, [])
        trial: Any = Population()
        scheduler.on_trial_add(trial, trial)
        for epoch in range(first, 7):
            result = {"epoch": epoch, "macro_f1": 0.5}
            decision = scheduler.on_trial_result(trial, trial, result)
            found += [epoch] if decision != TrialScheduler.CONTINUE else []
    assert found == [2, 4, 4]


def test_the_cost_of_early_stopping(backbone: Backbone) -> None:
    expected, full = expected_epochs(make_plan(settings(trials=12), backbone))
    assert full == 48 and 12 < expected < 0.75 * full
    without = make_plan(settings(trials=12, scheduler="none"), backbone)
    assert expected_epochs(without) == (48, 48)
    limited = make_plan(settings(trials=12, max_epochs=20), backbone)
    assert expected_epochs(limited)[0] == 20
    grid = {"train.batch_size": {"choice": [16, 32]}}
    few = make_plan(settings(space=grid, search="grid", scheduler="none"), backbone)
    assert few.default in [*few.space.grid()] and expected_epochs(few)[1] == 2 * 4
    small = make_plan(settings(space=grid, trials=12, scheduler="none"), backbone)
    assert expected_epochs(small)[1] == 2 * 4


def test_samples_are_what_the_search_begins_with(backbone: Backbone) -> None:
    plan = make_plan(settings(), backbone)
    drawn = samples(plan, 10)
    assert len(drawn) == 10 and drawn[0] == plan.default
    assert drawn == samples(plan, 10)
    grid = make_plan(
        settings(space={"train.batch_size": {"choice": [16, 32]}}, search="grid"), backbone
    )
    assert [d["train.batch_size"] for d in samples(grid, 10)] == [32, 16]
    small = make_plan(settings(space={"train.batch_size": {"choice": [16, 32]}}), backbone)
    assert [d["train.batch_size"] for d in samples(small, 10)] == [32, 16]


# --- records ------------------------------------------------------------------------------------


def _callback(folder: Path, past: list[Trial] | None = None) -> tuple[LedgerCallback, list[Any]]:
    told: list[Any] = []
    callback = LedgerCallback(
        Ledger(folder),
        {"macro_f1": "max"},
        past or [],
        "asha",
        lambda *event: told.append(event),
    )
    return callback, told


def _tune_trial(number: int, **result: Any) -> Any:
    config = {"number": number, "params": {"train.dropout": 0.1}, "source": "search"}
    name = trial_name(number)
    return SimpleNamespace(
        config=config, last_result=result, error_file=None, custom_trial_name=name
    )


def test_what_trials_do_is_read_back(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, told = _callback(tmp_path)
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
    assert len([event for event in told if event[0] == "epoch"]) == 8


def test_a_trial_that_never_started_fails(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, _ = _callback(tmp_path)
    callback.on_trial_error(trial=_tune_trial(0))
    [trial] = read_sweep(tmp_path).trials
    assert (trial.status, trial.reason) == ("failed", "its process was lost")


def test_what_a_trial_reached_is_of_the_epoch_that_training_keeps() -> None:
    scores = [(0.5, 0.9), (0.7, 1.0), (0.7, 1.1), (0.6, 0.8)]
    epochs = [{"macro_f1": f1, "validation_loss": loss} for f1, loss in scores]
    assert kept_value(epochs, "validation_loss", "min") == 1.1
    assert kept_value(epochs, "macro_f1", "max") == 0.7
    by_number = dict(enumerate(epochs, 1))
    assert best_values(by_number, {"validation_loss": "min"}) == {"validation_loss": 1.1}
    assert kept_value([{"loss": 1.0}, {"loss": 0.5}], "loss", "min") == 0.5
    assert kept_value([], "macro_f1", "max") is None


def test_a_trial_that_takes_over_others_settings_says_so(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [], finished=None)
    callback, told = _callback(tmp_path)
    trial = _tune_trial(0)
    callback.on_trial_start(trial=trial)
    trial.config = {**trial.config, "params": {"train.dropout": 0.3}}
    callback.on_trial_start(trial=trial)
    assert [fields["source"] for _, _, fields in told] == ["search", "pbt"]
    assert read_sweep(tmp_path).trials[0].params == {"train.dropout": 0.3}


def test_epochs_of_before_are_not_written_again(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {}), sweeps.epoch(0, 2.0, 1, 0.5)], finished=None)
    callback, told = _callback(tmp_path, read_sweep(tmp_path).trials)
    trial = _tune_trial(0)
    callback.on_trial_start(trial=trial)
    for epoch in (1, 2):
        callback.on_trial_result(trial=trial, result={"epoch": epoch, "macro_f1": 0.5})
    assert [e for e, _, _ in told] == ["start", "epoch"]
    assert [e.epoch for e in read_sweep(tmp_path).trials[0].epochs] == [1, 2]


def test_a_half_line_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})], finished=None)
    with (tmp_path / "trials.jsonl").open("ab") as stream:
        stream.write(b'{"event": "epo')
    Ledger(tmp_path).write("start", 1, params={}, source="search")
    assert [t.number for t in read_sweep(tmp_path).trials] == [0, 1]


def test_an_event_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})], finished=None)
    ledger = Ledger(tmp_path)
    before = (tmp_path / "trials.jsonl").read_bytes()
    with file_limit(len(before) + 20), pytest.raises(DiskError, match="too large"):
        ledger.write("end", 0, status="finished")
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    ledger.write("end", 0, status="finished")
    assert [trial.status for trial in read_sweep(tmp_path).trials] == ["finished"]


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="a sweep runs there"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


# --- budget -------------------------------------------------------------------------------------


def test_budgets(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()  # of an earlier try
    assert not Budget(settings().sweep, 10**6, 10**6, stop).stop_all()
    epochs = Budget(settings(max_epochs=5).sweep, 4, 0, stop)
    assert not epochs.stop_all() and not stop.exists()
    epochs.epochs += 1
    assert epochs.stop_all() and epochs.reason == "sweep.max_epochs=5"
    assert stop.exists()
    assert Budget(settings(max_seconds=9).sweep, 0, 9.5, stop).reason is None
    assert Budget(settings(max_seconds=9).sweep, 0, 9.5, stop).stop_all()
    told = Budget(settings().sweep, 0, 0, stop)
    told.end()
    assert told.stop_all() and told.reason is None


def test_epochs_of_earlier_tries_count(
    tmp_path: Path, backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    events = [sweeps.start(0, 1.0, {}), sweeps.epoch(0, 2.0, 1, 0.5), sweeps.epoch(0, 3.0, 2, 0.5)]
    past = read_sweep(sweeps.write(tmp_path / "run", events, finished=None))
    plan = make_plan(settings(max_epochs=2), backbone)
    nothing: Any = None  # no trial is started
    with caplog.at_level(logging.INFO):
        search(plan, nothing, past, [], 1, trainable=nothing)
    assert "its budget was spent before (sweep.max_epochs=2)" in caplog.text


def test_time_of_earlier_tries_counts_without_the_pauses(tmp_path: Path) -> None:
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


# --- trials -------------------------------------------------------------------------------------


def test_a_reason_is_the_innermost_cause_in_one_line() -> None:
    inner = InputError("train.learning_rate=0.5: the loss is\n  not finite")
    outer = RuntimeError("Training failed")
    outer.worker_failures = {0: inner}  # type: ignore[attr-defined]
    assert reason(outer) == "train.learning_rate=0.5: the loss is not finite"
    assert reason(MemoryError("no room")) == "MemoryError: no room"
    assert len(reason(ValueError("x" * 1000))) == 300


def test_what_the_settings_are_to_blame_for() -> None:
    class TrainingFailedError(RuntimeError):
        """As Ray Train's."""

        def __init__(self, failure: Exception) -> None:
            super().__init__("Training failed")
            self.worker_failures = {0: failure}

    assert (
        cause(TrainingFailedError(DivergenceError("the loss is not a finite number"))) == "diverged"
    )
    assert cause(MemoryShortageError("no room for one row")) == "memory"
    assert cause(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    for other in (InputError("train.cpus_per_worker=64"), MemoryError(), RuntimeError("NCCL")):
        assert cause(TrainingFailedError(other)) is None


@pytest.mark.parametrize("name", ["macro_f1", "latency_ms"])
def test_a_trial_whose_end_is_no_number_diverged(name: str) -> None:
    work: Any = SimpleNamespace(metric="macro_f1")
    found = {"final": {"macro_f1": 0.5, "latency_ms": 5.0, name: math.nan}}
    with pytest.raises(DivergenceError, match=f"{name} is not a finite number"):
        _Reports(work).finished(found)


def test_no_trial_with_a_value(tmp_path: Path, backbone: Backbone) -> None:
    why = (
        "train.learning_rate=0.9: the loss is not a finite number in epoch 1; last good checkpoint"
    )
    events = [
        sweeps.start(0, 0.0, {"train.learning_rate": 0.9}),
        sweeps.end(0, 1.0, 0, None, status="diverged", cause="diverged", reason=f"{why}: none"),
    ]
    plan = make_plan(settings(), backbone)
    one = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "one", events))))
    assert one == (
        "sweep.space.train.learning_rate={'loguniform': [1e-05, 0.01]}: the only trial diverged "
        f"(e.g. {why.partition(';')[0]}); set a lower rate under another run.name"
    )
    other = [sweeps.start(1, 0.0, {}), sweeps.end(1, 1.0, 0, None, status="failed", reason="lost")]
    two = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "two", events + other))))
    assert two.startswith("sweep: not one of 2 trials has a value (1 diverged, 1 failed; first: ")
    none = str(without_value(plan, read_sweep(sweeps.write(tmp_path / "none", []))))
    assert "none was started" in none


def test_a_diverged_member_gives_no_weights_away(backbone: Backbone) -> None:
    plan = make_plan(settings(scheduler="pbt", search="random"), backbone)
    scheduler: Any = scheduler_of(plan.config, plan.space, 4, [])
    result = {"epoch": 1, "macro_f1": -1e9, "failure": "the loss is no number"}
    assert scheduler.on_trial_result(NOBODY, NOBODY, result) == TrialScheduler.CONTINUE


def test_settings_that_a_killed_population_had_not_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "0003"
    place.mkdir()

    def take_over(source: Path, base: Path) -> Path:
        assert (source, base) == (place, place)
        (tmp_path / "0003-1").mkdir()
        return tmp_path / "0003-1"

    monkeypatch.setattr("tune.trial._take_over", take_over)
    assert _settled(place, place, {"train.dropout": 0.1}) == place
    assert _settled(place, place, {"train.dropout": 0.1}) == place
    following = _settled(place, place, {"train.dropout": 0.2})
    assert following == tmp_path / "0003-1"
    assert _settled(following, place, {"train.dropout": 0.2}) == following


def test_shares_of_a_population_fit_on_single_machines() -> None:
    assert share_of([12], 3) == 4
    assert share_of([10, 10, 10], 2) == 10  # half of all would fit on none
    assert share_of([10, 10], 3) == 10
    assert share_of([16, 4], 5) == 4


# --- verification -------------------------------------------------------------------------------


def _row(trial: int | None, *values: float | None) -> dict[str, Any]:
    whole = [v for v in values if v is not None]
    return {
        "trial": trial,
        "params": {"trial": trial},
        "sweep": 0.9,
        "std": 0.0,
        "mean": sum(whole) / len(whole) if len(whole) == len(values) else None,
        "seeds": [
            {
                "seed": i,
                "validation": v,
                "model_dir": f"{trial}-{i}",
                "failure": None if v is not None else "lost",
            }
            for i, v in enumerate(values)
        ],
    }


def test_the_best_mean_is_chosen_and_luck_is_said() -> None:
    rows = [_row(3, 0.80, 0.78), _row(5, 0.83, 0.81), _row(None, 0.79, 0.77)]
    found = conclude(rows, "max", (0.88, Trial(3, {"a": 1})), None)
    assert (found["chosen"], found["verified"], found["model_dir"]) == (
        5,
        pytest.approx(0.82),
        "5-0",
    )
    assert found["luck"] == pytest.approx(0.88 - 0.79)  # what the sweep's best was worth
    assert found["gain"]["by_seed"] == pytest.approx([0.04, 0.04])


def test_less_is_better_where_it_is() -> None:
    rows = [_row(1, 0.5, 0.6), _row(None, 0.4, 0.4)]
    found = conclude(rows, "min", (0.3, Trial(1, {})), None)
    assert found["chosen"] == "default" and found["luck"] == pytest.approx(0.25)


def test_of_equals_the_settings_as_they_are() -> None:
    found = conclude([_row(1, 0.5), _row(None, 0.5)], "max", (0.5, Trial(1, {})), None)
    assert found["chosen"] == "default"


def test_a_candidate_that_failed_once_is_not_chosen() -> None:
    rows = [_row(1, 0.9, None), _row(None, 0.5, 0.5)]
    found = conclude(rows, "max", (0.9, Trial(1, {})), None)
    assert found["chosen"] == "default" and found["luck"] is None
    with pytest.raises(InputError, match="not one candidate"):
        conclude([_row(1, None), _row(None, None)], "max", (0.9, Trial(1, {})), None)


def test_candidates_are_the_best_ones_each_once(tmp_path: Path, backbone: Backbone) -> None:
    plan = make_plan(settings(verify_best=2), backbone)
    params = [
        plan.default,
        {"train.learning_rate": 1e-3},
        {"train.learning_rate": 1e-3},
        {"train.learning_rate": 2e-3},
        {"train.learning_rate": 3e-3},
    ]
    values, states = [0.9, 0.8, 0.79, 0.95, 0.7], ["finished"] * 3 + ["interrupted", "finished"]
    events = []
    for number, (point, value, status) in enumerate(zip(params, values, states, strict=True)):
        events += [
            sweeps.start(number, number, point or {}),
            sweeps.end(number, number + 0.5, 4, value, status=status),
        ]
    found = candidates(plan, read_sweep(sweeps.write(tmp_path, events)))
    assert [(c.name, c.reached) for c in found] == [
        ("trial-3", 0.95),
        ("trial-1", 0.8),
        ("default", 0.9),
    ]


def test_the_chosen_model_stays_where_it_was_trained(tmp_path: Path) -> None:
    # A longer sweep may choose another one, and the one after it this one again.
    for name in ("a", "b", "a"):
        trained = tmp_path / "verify" / name / "model"
        trained.mkdir(parents=True, exist_ok=True)
        (trained / "name").write_text(name)
        result = {"model_dir": str(trained)}
        _keep_model(tmp_path, result)
        assert result["model_dir"] == str(tmp_path / "model")
        assert (tmp_path / "model/name").read_text() == name
        assert (trained / "name").is_file()
