"""The search space: what is drawn from it, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from finsent.errors import ConfigError
from ray_jobs._settings import JobSettings
from tune.space import Space, with_values
from tune.space_parser import parse_space

pytestmark = pytest.mark.cost(1.5, "imports Optuna")

SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 3e-4]},
    "train.dropout": {"quantized": [0.0, 0.3, 0.1]},
    "train.epochs": {"int": [2, 6]},
    "train.batch_size": {"choice": [16, 32]},
    "train.ema_decay": {"uniform": [0.9, 0.999], "when": {"train.batch_size": 16}},
}


def samples(space: Space, count: int = 200, seed: int = 3) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.sample(study.ask()) for _ in range(count)]


def test_values_lie_within_their_bounds() -> None:
    space = parse_space(SPACE, JobSettings())
    drawn = samples(space)
    assert all(1e-5 <= params["train.learning_rate"] <= 3e-4 for params in drawn)
    middle = sum(params["train.learning_rate"] < 5.5e-5 for params in drawn)
    assert 70 < middle < 130  # half of them below the geometric middle
    assert {params["train.dropout"] for params in drawn} == {0.0, 0.1, 0.2, 0.3}
    assert {params["train.epochs"] for params in drawn} == {2, 3, 4, 5, 6}
    assert {params["train.batch_size"] for params in drawn} == {16, 32}
    for params in drawn:
        assert ("train.ema_decay" in params) == (params["train.batch_size"] == 16)


def test_the_same_seed_draws_the_same() -> None:
    space = parse_space(SPACE, JobSettings())
    assert samples(space, 20) == samples(space, 20)
    assert samples(space, 20) != samples(space, 20, seed=4)


def test_a_parameter_may_precede_its_parent() -> None:
    backwards = dict(reversed(SPACE.items()))
    assert samples(parse_space(backwards, JobSettings()), 50)[0].keys() >= {"train.batch_size"}
    order = [parameter.key for parameter in parse_space(backwards, JobSettings()).parameters]
    assert order.index("train.batch_size") < order.index("train.ema_decay")


def test_samples_are_valid_settings() -> None:
    for params in samples(parse_space(SPACE, JobSettings()), 20):
        train = with_values(JobSettings(), params).train
        assert train.learning_rate == params["train.learning_rate"]
        assert train.batch_size == params["train.batch_size"]


def test_a_grid_has_each_combination_once() -> None:
    space = parse_space(
        {
            "train.batch_size": {"choice": [16, 32, 64]},
            "train.epochs": {"int": [2, 3], "when": {"train.batch_size": [16, 32]}},
        },
        JobSettings(),
    )
    grid = list(space.grid())
    assert len(grid) == 5
    assert {"train.batch_size": 64} in grid
    with pytest.raises(ConfigError, match=r"train\.learning_rate: loguniform is continuous"):
        list(parse_space(SPACE, JobSettings()).grid())


def test_a_range_ends_at_its_last_complete_step() -> None:
    space = parse_space({"train.dropout": {"quantized": [0.0, 0.5, 0.2]}}, JobSettings())
    assert space.parameters[0].high == 0.4
    assert {params["train.dropout"] for params in samples(space, 50)} == {0.0, 0.2, 0.4}


def test_bounds_are_checked_where_the_parameter_varies() -> None:
    workers = {"train.num_workers": {"choice": [1, 2]}}
    share = {"train.gpus_per_worker": {"choice": [0.5, 1.0], "when": {"train.num_workers": 1}}}
    assert JobSettings().train.num_workers == 2  # with which 0.5 is refused
    parse_space(workers | share, JobSettings())
    with pytest.raises(ConfigError, match="NCCL"):
        parse_space({"train.gpus_per_worker": {"choice": [0.5, 1.0]}}, JobSettings())


def test_a_condition_on_null_needs_a_value_of_the_parent() -> None:
    space = parse_space(
        {
            "train.epochs": {"choice": [2, 3]},
            "train.lora_rank": {"choice": [None, 8], "when": {"train.epochs": 2}},
            "train.dropout": {"uniform": [0, 0.3], "when": {"train.lora_rank": None}},
        },
        JobSettings(),
    )
    assert not any(
        "train.dropout" in params for params in samples(space) if params["train.epochs"] == 3
    )


def test_a_condition_on_a_large_range_is_not_enumerated() -> None:
    seeds = {"train.seed": {"int": [0, 2**40]}}  # not counted one by one
    parse_space(seeds | {"train.epochs": {"int": [1, 3], "when": {"train.seed": 5}}}, JobSettings())


def test_lists_may_be_choices() -> None:
    space = parse_space({"train.num_workers": {"choice": [1, [1, 4]]}}, JobSettings())
    drawn = {str(params["train.num_workers"]) for params in samples(space, 30)}
    assert drawn == {"1", "[1, 4]"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "sweep.space: is empty"),
        ({"train.learning_rat": {"uniform": [0.1, 0.2]}}, "train.learning_rat: unknown key"),
        ({"serve.port": {"int": [1, 2]}}, "sweep.space.serve.port: a trial varies settings of"),
        ({"train.dropout": 0.1}, "sweep.space.train.dropout=0.1: is not a range. Write one of"),
        (
            {"train.dropout": {"normal": [0, 1]}},
            "sweep.space.train.dropout: is not a range. Write one of",
        ),
        (
            {"train.dropout": {"uniform": 0.1}},
            "train.dropout.uniform=0.1: is not a list. Write {uniform",
        ),
        ({"train.dropout": {"uniform": [0.1]}}, "with numbers"),
        ({"train.dropout": {"uniform": [0.1, "much"]}}, "with numbers"),
        ({"train.dropout": {"uniform": [0.1, float("nan")]}}, "with numbers"),
        ({"train.dropout": {"uniform": [0.2, 0.2]}}, "is empty"),
        ({"train.dropout": {"uniform": [0.3, 0.2]}}, "lower bound above the upper"),
        ({"train.learning_rate": {"loguniform": [0, 0.1]}}, "begins above 0"),
        ({"train.epochs": {"int": [1.5, 3]}}, "Write integers"),
        ({"train.dropout": {"quantized": [0, 0.3, 0.5]}}, "STEP must be above 0"),
        ({"train.batch_size": {"choice": [16]}}, "two different values"),
        ({"train.batch_size": {"choice": [16, 16]}}, "two different values"),
        ({"train.epochs": {"int": [0, 3]}}, "sweep.space.train.epochs: train.epochs=0"),
        ({"train.batch_size": {"choice": [16, "many"]}}, "train.batch_size='many'"),
        (
            {"train.epochs": {"int": [1, 3], "when": {"train.batch_size": 8}}},
            "'train.batch_size' must be in sweep.space",
        ),
        (
            {
                "train.batch_size": {"choice": [16, 32]},
                "train.epochs": {"int": [1, 3], "when": {"train.batch_size": 8}},
            },
            r"train.batch_size is never \[8\]",
        ),
        (
            {
                "train.batch_size": {"choice": [16, 32], "when": {"train.epochs": 2}},
                "train.epochs": {"int": [1, 3], "when": {"train.batch_size": 16}},
            },
            "depends on itself",
        ),
        (
            {
                "train.batch_size": {"choice": [16, 32], "when": {"train.epochs": 2}},
                "train.epochs": {"int": [1, 3], "when": {"train.seed": 1}},
            },
            "'train.seed' must be in sweep.space",
        ),
        ({"train.batch_size": {"uniform": [8, 16]}}, "train.batch_size=11.05.*valid integer"),
        ({"train.epochs": {"quantized": [1, 4, 1.5]}}, "train.epochs=2.5.*valid integer"),
        ({"train.dataset": {"choice": ["a", "b"]}}, "all trials train on one dataset version"),
    ],
)
def test_an_invalid_space_is_one_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse_space(space, JobSettings())
    assert "\n" not in str(error.value)
