"""A run's directory: stored settings, resumed runs, and the models of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finsent.config import load
from finsent.errors import ConfigError, InputError, UserError
from finsent.files import read_json
from finsent.registry.model_handle import Model
from finsent.runs import code_identity, finish_run, start_run
from finsent.training.fine_tune import RECIPE
from finsent.workspace import Workspace
from ray_jobs._settings import JobSettings

FIXED = {"train": RECIPE, "pipeline": RECIPE}  # by job


def settings(*overrides: str) -> JobSettings:
    return load(JobSettings, [], overrides)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


# --- starting and finishing -----------------------------------------------------------------------


def test_run_stores_its_settings_first_and_its_result_last(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r1"
    requested = settings("train.epochs=7")
    start_run(run, "train", requested, RECIPE)
    config = read_json(run / "config.json")
    assert config.pop("job") == "train"
    assert JobSettings.model_validate(config) == requested
    assert set(read_json(run / "environment.json")) == {"git_commit", "git_dirty", "packages"}
    assert not (run / "result.json").exists()  # its presence says that the run succeeded
    finish_run(run, {"job": "train", "macro_f1": 0.5})
    assert read_json(run / "result.json") == {"job": "train", "macro_f1": 0.5}


def test_resumed_run_has_no_result_until_it_ends_again(tmp_path: Path) -> None:
    start_run(tmp_path / "r1", "train", settings(), RECIPE)
    finish_run(tmp_path / "r1", {"job": "train"})
    start_run(tmp_path / "r1", "train", settings(), RECIPE)
    assert not (tmp_path / "r1" / "result.json").exists()


@pytest.mark.parametrize(
    ("job", "overrides", "phrases"),
    [
        ("evaluate", [], ["is a run of the job 'train', not 'evaluate'", "Choose another name"]),
        ("train", ["train.epochs=9"], ["train.epochs=4, now train.epochs=9", "restore them"]),
        (
            "train",
            ["data.sources=[a.csv]"],
            ["data.sources=['sample'], now data.sources=['a.csv']"],
        ),
        ("train", ["data.split.train=0.7", "data.split.test=0.2"], ["data.split.train=0.8, now"]),
        ("train", ["model.max_length=64"], ["model.max_length=128, now model.max_length=64"]),
    ],
)
def test_name_of_another_run_is_refused_and_its_files_stay(
    tmp_path: Path, job: str, overrides: list[str], phrases: list[str]
) -> None:
    run = tmp_path / "nightly"
    start_run(run, "train", settings(), RECIPE)
    finish_run(run, {"job": "train"})
    (run / "checkpoint_epoch_0001").mkdir()
    before = content(run)
    with pytest.raises(ConfigError) as caught:
        start_run(run, job, settings(*overrides), FIXED.get(job, ()))
    text = str(caught.value)
    assert text.startswith("run.name='nightly': ")
    assert all(phrase in text for phrase in [*phrases, "Choose another name"]), text
    assert content(run) == before


def test_name_of_a_run_whose_checkpoints_were_removed_is_refused_too(tmp_path: Path) -> None:
    start_run(tmp_path / "nightly", "pipeline", settings(), RECIPE)
    (tmp_path / "nightly" / "trained.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^run\.name='nightly': .*train\.epochs=9"):
        start_run(tmp_path / "nightly", "pipeline", settings("train.epochs=9"), RECIPE)
    start_run(tmp_path / "nightly", "pipeline", settings("train.keep_checkpoints=true"), RECIPE)


def test_name_of_a_run_that_trained_nothing_is_free(tmp_path: Path) -> None:
    start_run(tmp_path / "typo", "train", settings("data.sources=[absent.csv]"), RECIPE)
    start_run(tmp_path / "typo", "train", settings("data.sources=[there.csv]"), RECIPE)
    assert read_json(tmp_path / "typo" / "config.json")["data"]["sources"] == ["there.csv"]


@pytest.mark.parametrize(
    ("job", "override"),
    [
        ("train", "train.num_workers=1"),
        ("train", "ray.num_cpus=6"),  # where it runs, not what it makes
        ("train", "engine.token_budget=64"),
        ("pipeline", "publish.alias=challenger"),
        ("evaluate", "train.epochs=9"),  # trains nothing
    ],
)
def test_run_resumes_when_other_settings_change(tmp_path: Path, job: str, override: str) -> None:
    start_run(tmp_path / "r1", job, settings(), FIXED.get(job, ()))
    start_run(tmp_path / "r1", job, settings(override), FIXED.get(job, ()))
    config = read_json(tmp_path / "r1" / "config.json")
    key, _, value = override.partition("=")
    section, _, name = key.partition(".")
    assert str(config[section][name]) == value


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_run_is_named(tmp_path: Path, text: str) -> None:
    start_run(tmp_path / "r1", "train", settings(), RECIPE)
    (tmp_path / "r1" / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        start_run(tmp_path / "r1", "train", settings(), RECIPE)
    assert "r1" in str(caught.value)


def test_unwritable_directory_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^storage\.root=.*Set storage\.root to a directory"):
        start_run(tmp_path / "file" / "runs" / "r1", "train", settings(), RECIPE)


def test_code_identity_names_the_packages_that_decide_results() -> None:
    identity = code_identity()
    assert json.loads(json.dumps(identity)) == identity
    packages = identity["packages"]
    assert {"finsent", "ray", "torch", "transformers", "pyarrow"} <= set(packages)
    assert str(packages["torch"]).startswith("2.")
    assert identity["git_commit"] is None or len(identity["git_commit"]) == 40
    assert isinstance(identity["git_dirty"], bool)


# --- finding a model ------------------------------------------------------------------------------


def trained(runs: Path, name: str, age: int) -> Path:
    model = runs / name / "model"
    model.mkdir(parents=True)
    (model / "provenance.json").write_text("{}")
    result = runs / name / "result.json"  # written when the run has finished
    result.write_text("{}")
    os.utime(result, (10_000 - age, 10_000 - age))
    return model


def find_unpublished(reference: str, runs_dir: Path) -> Path:
    workspace = Workspace.at(runs_dir.parent)
    return Model.find_unpublished(reference, workspace, "publish.model").folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, age in {"b-old": 30, "a-new": 10, "c-older": 40}.items():
        trained(tmp_path / "runs", name, age)
    (trained(tmp_path / "runs", "y-unfinished", 0).parent / "result.json").unlink()
    (tmp_path / "runs" / "z-failed" / "checkpoint_1" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "z-failed" / "checkpoint_1" / "model" / "provenance.json").write_text("{}")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("latest", "a-new/model"),
        ("b-old", "b-old/model"),
        ("b-old/model", "b-old/model"),
        ("{runs}/c-older", "c-older/model"),
        ("{runs}/c-older/model", "c-older/model"),
        ("~/runs/b-old", "b-old/model"),
    ],
)
def test_model_is_found_by_run_directory_and_latest(
    runs: Path, monkeypatch: pytest.MonkeyPatch, reference: str, named: str
) -> None:
    monkeypatch.setenv("HOME", str(runs.parent))
    monkeypatch.chdir(runs.parent)
    assert find_unpublished(reference.format(runs=runs), runs) == runs / named


def test_relative_directory_counts_from_the_working_directory(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    folder = find_unpublished("runs/b-old", runs.parent / "none" / "runs")
    assert folder == runs / "b-old" / "model"


@pytest.mark.parametrize("reference", ["d-none", "z-failed", "~/none", "/etc"])
def test_reference_to_no_model_is_named(runs: Path, reference: str) -> None:
    with pytest.raises(InputError) as caught:
        find_unpublished(reference, runs)
    text = str(caught.value)
    assert text.startswith(f"publish.model={reference!r}: neither a run in {str(runs)!r}")


def test_latest_without_a_model_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"publish\.model='latest': .*`python -m ray_jobs\.train`"):
        find_unpublished("latest", tmp_path / "runs")


def test_result_with_any_letters_is_read_back(tmp_path: Path) -> None:
    result: dict[str, Any] = {"text": "Zürich ↑ 5 %", "loss": None}
    finish_run(tmp_path, result)
    assert read_json(tmp_path / "result.json") == result
