"""Sweeps on a real Ray: real trials of the tiny BERT, and many that do nothing."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import ray
from ray import tune
from ray.util import placement_group, placement_group_table, remove_placement_group

from finsent.config import check
from finsent.data.dataset import DatasetVersion
from finsent.data.ingest import ingest
from finsent.data.sources import find_sources
from finsent.errors import InputError
from finsent.files import read_json
from finsent.labels import LABELS
from finsent.modeling.backbone import resolve_backbone
from finsent.settings import Settings
from finsent.training.outputs import read_journal
from ray_jobs._bench_sweep import stub_trial
from tune.leftovers import give_back
from tune.plan import Plan, begin, make_plan
from tune.records import Sweep, read_sweep
from tune.sweep import search
from tune.trial import STOP, Work
from tune.verify import verify

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


def settings(root: Path, sweep: dict[str, Any], **train: Any) -> Settings:
    values = {
        "storage": {"root": str(root)},
        "model": {"backbone": "tiny", "max_length": 64},
        "data": {
            "sources": [str(root / "rows.csv")],
            "near_duplicates": {"enabled": False},
            "label_noise": {"enabled": False},
        },
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "num_workers": 1, **train},
        "sweep": sweep,
        "export": {"openvino": False},
    }
    return check(Settings, values)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    root = tmp_path_factory.mktemp("sweeps")
    with (root / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("Sentence", "Sentiment"))
        for i in range(240):
            words = WORDS[LABELS[i % 3]]
            writer.writerow((f"Unit {i}: {words}, then {words} once more", LABELS[i % 3]))
    made = settings(root, {})
    return ingest(made.data, made.datasets_dir, find_sources(made.data, made.sources_dir))


def prepared(
    version: DatasetVersion, run_dir: Path, sweep: dict[str, Any], **train: Any
) -> tuple[Plan, Work, Sweep]:
    from finsent.training.ray_trainer import tokenised
    from finsent.training.task import make_task

    run_dir.mkdir(exist_ok=True)
    root = version.path.parents[2]
    made = settings(root, sweep, **train)
    backbone = resolve_backbone(made.model, made.root / "backbones")
    plan = make_plan(made, backbone)
    task = make_task(made.train, made.model, backbone, version)
    datasets = {split: tokenised(version, split, task) for split in ("train", "validation")}
    modes, exchanges = plan.config.modes, plan.config.scheduler == "pbt"
    work = Work(made, run_dir, version.path, modes, datasets, exchanges)
    return plan, work, begin(plan, run_dir, version.version, 2)


def test_a_sweep_fails_in_single_trials_only_and_its_winner_is_verified(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {
            "train.learning_rate": {"loguniform": [1e-5, 1e-2]},
            "train.batch_tokens": {"choice": [8, 4096]},
        },
        "known": [
            {"train.learning_rate": 3e-3, "train.batch_tokens": 4096},
            {"train.learning_rate": 3e-3, "train.batch_tokens": 8},
        ],
        "trials": 3, "scheduler": "none", "verify_best": 1, "verify_seeds": 2,
    }  # fmt: skip
    plan, work, past = prepared(version, run_dir, sweep)
    events: list[Any] = []
    search(plan, work, past, [], 2, follow=lambda *event: events.append(event))
    found = read_sweep(run_dir)
    assert [t.number for t in found.trials] == [0, 1, 2]
    good, bad = found.trials[0], found.trials[1]
    assert good.status == "finished" and [e.epoch for e in good.epochs] == [1, 2, 3]
    assert good.values["macro_f1"] == max(e.metrics["macro_f1"] for e in good.epochs)
    assert bad.status == "failed" and "train.batch_tokens=8" in (bad.reason or "")
    assert {e[0] for e in events} == {"start", "epoch", "end"}
    # The study knows the same, and nothing of what failed.
    study = optuna.load_study(
        study_name=found.settings["study_name"], storage=found.settings["storage"]
    )
    assert study.trials[0].value == good.values["macro_f1"]
    assert study.trials[1].state.name == "FAIL"
    # Room on the disk: what a trial needed to go on is gone, the model is there.
    place = run_dir / "trials" / "0000"
    assert (place / "model" / "model.safetensors").is_file()
    assert not [*place.glob("checkpoint_[es]*_[0-9]*")]

    verified = verify(plan, work, found, 2)
    assert [len(row["seeds"]) for row in [*verified["candidates"], verified["default"]]] == [2, 2]
    seeds = {seed["seed"] for seed in verified["default"]["seeds"]}
    assert len(seeds) == 2 and plan.settings.train.seed not in seeds
    assert (run_dir / "model" / "model.safetensors").is_file()
    means = [row["mean"] for row in [*verified["candidates"], verified["default"]]]
    assert verified["verified"] == max(means)
    # Again: nothing is trained twice.
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("metrics.jsonl")}
    again = verify(plan, work, found, 2)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("metrics.jsonl")} == before
    assert [row["mean"] for row in again["candidates"]] == [
        r["mean"] for r in verified["candidates"]
    ]


def test_early_stopping_spends_less_and_a_sweep_can_be_made_longer(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 12, "default_first": False, "reduction": 2}
    plan, work, past = prepared(version, run_dir, sweep, epochs=4)
    search(plan, work, past, [], 1, trainable=stub_trial)  # the same suggestions each time
    found = read_sweep(run_dir)
    states = [trial.status for trial in found.trials]
    assert len(states) == 12 and states.count("stopped") >= 3 and states.count("finished") >= 2
    assert sum(len(t.epochs) for t in found.trials) < 12 * 4
    best = max(found.trials, key=lambda t: t.values["macro_f1"])
    assert best.status == "finished"

    restored = tune.Tuner.restore(str(run_dir / "tune/search-1"), trainable=stub_trial)
    grid = restored.get_results()
    assert len(grid) == 12 and grid.num_errors == 0
    top = grid.get_best_result("macro_f1", "max", scope="all").metrics
    assert top is not None and top["macro_f1"] > 0.7

    plan, work, past = prepared(version, run_dir, {**sweep, "trials": 15}, epochs=4)
    search(plan, work, past, [], 2, trainable=stub_trial)
    longer = read_sweep(run_dir)
    assert [t.number for t in longer.trials] == [*range(15)]
    assert [t.params for t in longer.trials[:12]] == [t.params for t in found.trials]


def test_budgets_end_a_search(version: DatasetVersion, tmp_path: Path) -> None:
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 1000, "max_epochs": 20, "scheduler": "median"}
    plan, work, past = prepared(version, tmp_path / "run", sweep, epochs=4)
    search(plan, work, past, [], 2, trainable=stub_trial)
    found = read_sweep(tmp_path / "run")
    assert 20 <= sum(len(t.epochs) for t in found.trials) <= 26
    assert {t.reason for t in found.trials if t.status == "interrupted"} <= {"sweep.max_epochs=20"}


def held() -> list[str]:
    """What training runs hold of the cluster: their workers, cleaners and placement groups."""
    children = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            children.append(process.name())
    names = ("RayTrainWorker", "TrainController", "PlacementGroupCleaner", "ray::Training")
    groups = placement_group_table().values()
    return [
        *(name for name in children if any(one in name for one in names)),
        *(str(one["bundles"]) for one in groups if one["state"] != "REMOVED"),
    ]


def wait_until_nothing_is_held(meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 30
    while held():
        meanwhile()
        assert time.monotonic() < deadline, held()
        time.sleep(0.2)


def test_only_what_the_dead_have_made_is_given_back() -> None:
    class Maker:
        def make(self) -> str:
            self.group = placement_group([{"CPU": 0.01}])
            return str(self.group.id.hex())

    remote: Any = ray.remote(num_cpus=0)(Maker)
    own = placement_group([{"CPU": 0.01}])
    dead, alive = remote.remote(), remote.remote()
    left, kept = ray.get([dead.make.remote(), alive.make.remote()])
    give_back()
    states = {key: row["state"] for key, row in placement_group_table().items()}
    assert "REMOVED" not in {states[left], states[kept], states[own.id.hex()]}
    ray.kill(dead)
    deadline = time.monotonic() + 30
    while placement_group_table()[left]["state"] != "REMOVED":
        assert time.monotonic() < deadline
        give_back()
    states = {key: row["state"] for key, row in placement_group_table().items()}
    assert "REMOVED" not in {states[kept], states[own.id.hex()]}
    ray.kill(alive)
    remove_placement_group(own)
    wait_until_nothing_is_held(give_back)


def test_a_stopped_trial_gives_back_all_that_it_held(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-6, 1e-2]}},
        "known": [{"train.learning_rate": 3e-3}, {"train.learning_rate": 1e-6}],
        "default_first": False, "trials": 2, "grace_epochs": 4,
    }  # fmt: skip
    plan, work, past = prepared(version, run_dir, sweep, epochs=30, batch_size=4)
    search(plan, work, past, [], 1)
    assert [t.status for t in read_sweep(run_dir).trials] == ["finished", "stopped"]
    wait_until_nothing_is_held()
    journal = read_journal(run_dir / "trials" / "0001")
    assert max(line["epoch"] for line in journal if line["kind"] == "epoch") < 30


@pytest.mark.parametrize("seconds", [6, 8, 20], ids="in {} s".format)  # starting, or training
def test_trials_that_run_when_the_time_is_up_give_back_all_that_they_held(
    version: DatasetVersion, tmp_path: Path, seconds: int
) -> None:
    run_dir = tmp_path / "run"
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    sweep = {"space": space, "trials": 50, "max_seconds": seconds}
    plan, work, past = prepared(version, run_dir, sweep, epochs=1000, batch_size=1)
    begun = time.monotonic()
    search(plan, work, past, [], 2)
    assert time.monotonic() - begun < seconds + 40
    trials = read_sweep(run_dir).trials
    assert trials or seconds < 20  # Ray Tune may not even have begun one
    assert {t.status for t in trials} <= {"interrupted"}
    wait_until_nothing_is_held()
    assert not (run_dir / STOP).exists()  # the winner is verified next


@pytest.mark.timeout(1500)
def test_population_based_training_exchanges_weights(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    rates = [3e-3, 1e-6]  # one learns; the other does well to take over its weights
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-6, 1e-2]}},
        "known": [{"train.learning_rate": rate} for rate in rates],
        "default_first": False, "trials": 2, "search": "random", "scheduler": "pbt",
        "grace_epochs": 40,
    }  # fmt: skip
    # So long that both train at the same time, though one begins some seconds later.
    plan, work, past = prepared(version, run_dir, sweep, epochs=160, batch_size=4)
    search(plan, work, past, [], 2)
    found = read_sweep(run_dir)
    assert [t.status for t in found.trials] == ["finished"] * 2, [t.reason for t in found.trials]
    lines = (run_dir / "trials.jsonl").read_text().splitlines()
    taken = [e for e in map(json.loads, lines) if e.get("source") == "pbt"]
    assert taken
    number = taken[0]["trial"]
    following = run_dir / "trials" / f"{number:04d}-1"
    epochs = [line["epoch"] for line in read_journal(following) if line["kind"] == "epoch"]
    # It went on from another's weights, as they were when they were given.
    assert epochs[0] in (41, 81, 121)
    assert found.trials[number].epochs[-1].epoch == 160
    assert max(t.values["macro_f1"] for t in found.trials) > 0.5


def test_several_objectives_are_measured_on_each_model(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}},
        "objectives": ["latency_ms", "parameters", "ece"], "scheduler": "none", "trials": 2,
    }  # fmt: skip
    plan, work, past = prepared(version, run_dir, sweep, epochs=1)
    search(plan, work, past, [], 2)
    found = read_sweep(run_dir)
    for trial in found.trials:
        assert trial.status == "finished", trial.reason
        assert 0 < trial.values["latency_ms"] < 1000
        assert trial.values["parameters"] > 10_000 and 0 <= trial.values["ece"] <= 1
    exports = read_json(run_dir / "trials" / "0000" / "model" / "exports.json")
    assert exports["exports"]


def test_a_space_over_data_and_model_makes_its_own_versions(
    version: DatasetVersion, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    sweep = {
        "space": {
            "model.max_length": {"choice": [16, 32]},
            "data.conflicts": {"choice": ["drop", "majority"]},
        },
        "scheduler": "none", "trials": 2, "default_first": False,
    }  # fmt: skip
    plan, work, past = prepared(version, run_dir, sweep, epochs=1)
    search(plan, work, past, [], 2)
    for trial in read_sweep(run_dir).trials:
        assert trial.status == "finished", trial.reason
        config = read_json(run_dir / "trials" / f"{trial.number:04d}" / "task.json")
        assert config["max_length"] == trial.params["model.max_length"]


def test_more_workers_than_the_cluster_has(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tune.room import room

    made = settings(version.path.parents[2], {}, num_workers=9)
    with pytest.raises(InputError, match=r"train\.num_workers=9"):
        room(made.train)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert room(settings(version.path.parents[2], {}).train) == 2
