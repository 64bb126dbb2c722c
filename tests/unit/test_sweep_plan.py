"""The plan of a sweep, its record, and its estimated cost. No Ray cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finsent.adapters.ray_core import Node
from finsent.cluster import Cluster
from finsent.errors import ConfigError
from finsent.modeling.backbone import Backbone
from ray_jobs._cli import main
from ray_jobs.sweep import JOB
from tests.unit import sweeps
from tune.cost_estimate import expected_epochs, sample_configurations
from tune.plan import begin_sweep, end_sweep, make_plan
from tune.trial_log import lock_run_dir

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return sweeps.tiny_backbone(tmp_path)


def test_unchanged_settings_are_the_first_trial(backbone: Backbone) -> None:
    known = {"train.learning_rate": 1e-4, "train.batch_size": 16}
    plan = make_plan(sweeps.tiny_settings(known=[known]), backbone)
    assert plan.default == {"train.learning_rate": backbone.learning_rate, "train.batch_size": 32}
    assert plan.first == [plan.default, known]
    assert make_plan(sweeps.tiny_settings(default_first=False), backbone).first == []
    outside = {"train.batch_size": {"choice": [8, 16]}}
    assert make_plan(sweeps.tiny_settings(space=outside), backbone).first == []


def test_epochs_in_the_space_set_the_longest_trial(backbone: Backbone) -> None:
    plan = make_plan(
        sweeps.tiny_settings(space={**sweeps.TINY_SPACE, "train.epochs": {"int": [2, 9]}}), backbone
    )
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
def test_invalid_plans_are_refused(sweep: dict[str, Any], problem: str, backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_plan(sweeps.tiny_settings(**sweep), backbone)


@pytest.mark.parametrize(
    ("sweep", "problem"),
    [
        ({"metric": "f1"}, "training never reports it"),
        ({"objectives": ["speed"]}, "latency_ms"),
        ({"objectives": ["parameters"]}, "set scheduler=none"),
        ({"objectives": ["ece"], "scheduler": "none", "search": "gp"}, "one objective only"),
        ({"scheduler": "pbt"}, "Set search=random"),
        ({"scheduler": "pbt", "search": "random", "trials": 1}, "two trials or more"),
        ({"publish": "challenger", "verify_best": 0}, "only a verified"),
        ({"storage": "sqlite://"}, "lost with the process"),
        ({"trials": 0}, "trials"),
    ],
)
def test_contradicting_settings_are_refused(sweep: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        sweeps.tiny_settings(**sweep)


def test_a_gpu_share_is_on_one_gpu() -> None:
    def on(share: float, **resources: float) -> int:
        cluster = Cluster([Node("1", "a", resources)])
        return cluster.slots(2, share if "GPU" in resources else 0.0)

    assert on(0.6, CPU=64, GPU=2) == 2  # not the three that two GPUs hold by their sum
    assert on(0.3, CPU=64, GPU=2) == 6
    assert on(0.25, CPU=4, GPU=1) == 2
    assert on(1.0, CPU=5) == 2


def test_concurrency_is_planned_for_the_widest_trial(backbone: Backbone) -> None:
    space = {"train.num_workers": {"choice": [1, [1, 4]]}, "train.cpus_per_worker": {"int": [1, 3]}}
    widest = make_plan(sweeps.tiny_settings(space=space), backbone).widest
    assert (widest.max_workers, widest.cpus_per_worker) == (4, 3)
    assert make_plan(sweeps.tiny_settings(), backbone).widest == sweeps.tiny_settings().train


def test_the_widest_trial_may_need_a_larger_batch_than_the_settings_have(
    backbone: Backbone,
) -> None:
    settings = sweeps.tiny_settings(
        space={
            "train.batch_size": {"choice": [8, 16]},
            "train.num_workers": {"choice": [1, 4], "when": {"train.batch_size": [8, 16]}},
        }
    )
    settings = settings.replaced(train=settings.train.replaced(batch_size=2))
    assert make_plan(settings, backbone).widest.max_workers == 4


def test_a_sweep_resumes_only_under_its_own_settings(tmp_path: Path, backbone: Backbone) -> None:
    begin_sweep(make_plan(sweeps.tiny_settings(), backbone), tmp_path, "v1", 2)
    end_sweep(tmp_path)
    again = begin_sweep(make_plan(sweeps.tiny_settings(trials=40), backbone), tmp_path, "v1", 2)
    assert not again.finished and len(again.settings.attempts) == 2
    for changed in (
        sweeps.tiny_settings(seed=7),
        sweeps.tiny_settings(scheduler="none"),
        sweeps.tiny_settings(metric="accuracy"),
    ):
        with pytest.raises(ConfigError, match="only under its own settings"):
            begin_sweep(make_plan(changed, backbone), tmp_path, "v1", 2)
    with pytest.raises(ConfigError, match="dataset_version"):
        begin_sweep(make_plan(sweeps.tiny_settings(), backbone), tmp_path, "v2", 2)
    longer = sweeps.tiny_settings()
    longer = longer.replaced(train=longer.train.replaced(epochs=9))
    with pytest.raises(ConfigError, match=r"train\.epochs=4, now train\.epochs=9"):
        begin_sweep(make_plan(longer, backbone), tmp_path, "v1", 2)
    smaller = dict(list(sweeps.tiny_settings().sweep.space.items())[1:])
    with pytest.raises(ConfigError, match=r"sweep\.space\.[a-z_.]+=\{.*\}, now "):
        begin_sweep(make_plan(sweeps.tiny_settings(space=smaller), backbone), tmp_path, "v1", 2)


def test_a_refused_call_changes_no_file_of_the_sweep(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "runs" / "mine"
    run_dir.mkdir(parents=True)
    begin_sweep(make_plan(sweeps.tiny_settings(), backbone), run_dir, "v1", 2)
    (run_dir / "result.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    space = f"sweep.space={json.dumps(sweeps.TINY_SPACE)}"
    arguments = [f"storage.root={tmp_path}", "run.name=mine", "model.backbone=tiny", space]
    with pytest.raises(SystemExit) as left:
        main(JOB, [*arguments, "sweep.seed=7"])
    assert left.value.code == 2
    assert "sweep.seed=42, now sweep.seed=7" in capsys.readouterr().err
    with lock_run_dir(run_dir), pytest.raises(SystemExit):
        main(JOB, arguments)
    after = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != ".lock"}
    assert after == before


def test_early_stopping_lowers_the_expected_epochs(backbone: Backbone) -> None:
    expected, full = expected_epochs(make_plan(sweeps.tiny_settings(trials=12), backbone))
    assert full == 48 and 12 < expected < 0.75 * full
    without = make_plan(sweeps.tiny_settings(trials=12, scheduler="none"), backbone)
    assert expected_epochs(without) == (48, 48)
    limited = make_plan(sweeps.tiny_settings(trials=12, max_epochs=20), backbone)
    assert expected_epochs(limited)[0] == 20
    grid = {"train.batch_size": {"choice": [16, 32]}}
    few = make_plan(sweeps.tiny_settings(space=grid, search="grid", scheduler="none"), backbone)
    assert few.default in [*few.space.grid()] and expected_epochs(few)[1] == 2 * 4
    small = make_plan(sweeps.tiny_settings(space=grid, trials=12, scheduler="none"), backbone)
    assert expected_epochs(small)[1] == 2 * 4


def test_samples_are_the_first_suggestions_of_the_search(backbone: Backbone) -> None:
    plan = make_plan(sweeps.tiny_settings(), backbone)
    drawn = sample_configurations(plan, 10)
    assert len(drawn) == 10 and drawn[0] == plan.default
    assert drawn == sample_configurations(plan, 10)
    grid = make_plan(
        sweeps.tiny_settings(space={"train.batch_size": {"choice": [16, 32]}}, search="grid"),
        backbone,
    )
    assert [d["train.batch_size"] for d in sample_configurations(grid, 10)] == [32, 16]
    small = make_plan(
        sweeps.tiny_settings(space={"train.batch_size": {"choice": [16, 32]}}), backbone
    )
    assert [d["train.batch_size"] for d in sample_configurations(small, 10)] == [32, 16]
