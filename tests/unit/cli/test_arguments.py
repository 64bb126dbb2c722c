"""Arguments of jobs: overrides, flags, help, the printed configuration."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finsent.config import load
from finsent.errors import ConfigError
from ray_jobs._arguments import parse_arguments
from ray_jobs._cli import Job
from ray_jobs._settings import JobSettings
from tests.unit.cli.jobs import JOBS, PLAIN, WITH_TEXTS, Caller

pytestmark = pytest.mark.cost(8, "starts processes that import every job")


def module(name: str) -> Job:
    job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
    return job


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "argv", "files", "overrides", "texts"),
    [
        (PLAIN, [], [], [], []),
        (PLAIN, ["a.yaml", "b.yml"], ["a.yaml", "b.yml"], [], []),
        (PLAIN, ["train.seed=1", "a.yaml"], ["a.yaml"], ["train.seed=1"], []),
        (PLAIN, ["run.name=my.yaml"], [], ["run.name=my.yaml"], []),
        (PLAIN, ["data.sources=[a b.csv]"], [], ["data.sources=[a b.csv]"], []),
        (PLAIN, ["ray.address="], [], ["ray.address="], []),
        (WITH_TEXTS, ["Up 5", "a.yaml", "Down"], ["a.yaml"], [], ["Up 5", "Down"]),
        (WITH_TEXTS, ["Q1 margin = 12 %"], [], [], ["Q1 margin = 12 %"]),
        (WITH_TEXTS, ["-5 % in a day"], [], [], ["-5 % in a day"]),
        (
            WITH_TEXTS,
            ["engine.threads=1", "--", "profit=5", "--help", "x.yaml", "--"],
            [],
            ["engine.threads=1"],
            ["profit=5", "--help", "x.yaml", "--"],
        ),
    ],
)
def test_arguments_are_parsed_by_kind(
    what: Job, argv: list[str], files: list[str], overrides: list[str], texts: list[str]
) -> None:
    arguments = parse_arguments(what, argv)
    parsed = (arguments.files, arguments.overrides, arguments.positional)
    assert parsed == (files, overrides, texts)
    assert not arguments.help
    assert not arguments.print_config


def test_flags_are_accepted_in_any_position() -> None:
    assert parse_arguments(PLAIN, ["a.yaml", "-h"]).help
    assert parse_arguments(WITH_TEXTS, ["--help", "Up"]).help
    assert parse_arguments(PLAIN, ["a.yaml", "--print-config", "train.seed=1"]).print_config


@pytest.mark.parametrize(
    ("what", "argv", "words"),
    [
        (PLAIN, ["--epochs=2"], ["'--epochs=2'", "not understood", "key=value", "--help"]),
        (PLAIN, ["Train.epochs=2"], ["'Train.epochs=2'", "not understood"]),
        (PLAIN, ["configs/train.json"], ["'configs/train.json'", "CONFIG.yaml"]),
        (PLAIN, ["-v"], ["'-v'", "--print-config"]),
        (PLAIN, ["=2"], ["'=2'", "key=value"]),
        (PLAIN, ["--", "text"], ["'text'", "probe accepts no texts or names"]),
        (WITH_TEXTS, ["--threads", "2"], ["'--threads'", "not understood"]),
    ],
)
def test_unknown_argument_is_named(what: Job, argv: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments(what, argv)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# --- help and config ------------------------------------------------------------------------------


def keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:  # an empty mapping is a value
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("name", JOBS)
def test_help_has_usage_result_and_every_key(called: Caller, name: str) -> None:
    what = module(name)
    assert what.name == name
    code, out, err = called(what, "--help", "no.such.key=1")  # help comes before any check
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m ray_jobs.{name} ")
    assert "\nResult: " in out
    expected = [*keys_of(JobSettings().model_dump(include={*what.sections}))]
    lines = out.splitlines()
    indices = [i for i, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    indices = [i for i in indices if "[]." not in lines[i]]  # keys of a list's items
    assert sorted(lines[i].partition("=")[0].strip() for i in indices) == sorted(expected)
    assert all(". " in lines[i + 1] for i in indices)  # the type, then a sentence


def test_printed_config_loads_unchanged(called: Caller, tmp_path: Path) -> None:
    overrides = [
        "train.epochs=9",
        "data.sources=['Zürich ä.csv']",
        "ray.num_cpus=6",
        "run.name='007'",
        "engine.threads=null",
    ]
    code, out, err = called(PLAIN, *overrides, "--print-config")
    assert (code, err) == (0, "")
    (tmp_path / "again.yaml").write_text(out, encoding="utf-8")
    assert load(JobSettings, [tmp_path / "again.yaml"], []) == load(JobSettings, [], overrides)
    assert yaml.safe_load(out)["run"]["name"] == "007"
    assert called(PLAIN, str(tmp_path / "again.yaml"), "--print-config")[1] == out
