"""Config files and overrides: merged, refused, shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finsent.config import load
from finsent.errors import ConfigError
from ray_jobs._settings import JobSettings
from serve_app.settings import load_service
from tests.unit.config_problems import SERVE, problem, write

CONFIGS = sorted({*SERVE.parent.glob("*.yaml")} - {SERVE})


def test_missing_file_hints_at_a_near_name(tmp_path: Path) -> None:
    write(tmp_path, "train.yaml", "")
    text = problem(files=(tmp_path / "trian.yaml",))
    assert f"{str(tmp_path / 'trian.yaml')!r}: no such file" in text
    assert f"Did you mean {str(tmp_path / 'train.yaml')!r}?" in text
    assert "Check the path." in problem(files=(tmp_path / "none" / "train.yaml",))


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (
            "train:\n  epochs: 1\n  seed: [1\nx: 2\n",
            ["not valid YAML", "line 4", "Correct that line."],
        ),
        ("train:\n\tepochs: 1\n", ["not valid YAML", "line 2", "Correct that line."]),
        ("train:\n  epochs: 1\n  epochs: 2\n", ["line 3", "duplicate key epochs"]),
        ("a: !!python/object/apply:os.getcwd []\n", ["not valid YAML", "line 1"]),
        ("train: \x01\n", ["not valid YAML", "#x0001"]),
        ("- train\n- data\n", ["contains no mapping", "Write sections"]),
        ("hello\n", ["contains no mapping", "Write sections"]),
        ("hello # a remark\n", ["contains no mapping", "Write sections"]),
        ("5\n", ["contains no mapping", "Write sections"]),
        ("true\n", ["contains no mapping", "Write sections"]),
        ("train: 5\n", ["train=5", "is a section"]),
        ("caf\xe9: 1\n".encode("latin-1"), ["cannot be read", "utf-8"]),
    ],
)
def test_bad_file_is_named_with_the_line(
    tmp_path: Path, text: str | bytes, phrases: list[str]
) -> None:
    path = write(tmp_path, "bad.yaml", text)
    message = problem(files=(path,))
    assert all(phrase in message for phrase in phrases), message
    assert "\n" not in message
    assert str(path) in message or "is a section" in phrases


def test_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert f"{str(tmp_path)!r}: cannot be read" in problem(files=(tmp_path,))


def test_files_that_do_not_merge_are_a_config_error(tmp_path: Path) -> None:
    files = (
        write(tmp_path, "a.yaml", "train:\n  epochs: 3\n"),
        write(tmp_path, "b.yaml", "train: [1]"),
    )
    assert "train" in problem(files=files)


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("epochs", ["'epochs'", "key=value", "train.epochs=2"]),
        ("=3", ["'=3'", "key=value"]),
        ("data.sources=[a.csv", ["'data.sources=[a.csv'", "not valid YAML", "Quote it"]),
    ],
)
def test_bad_override_is_named_with_an_example(override: str, phrases: list[str]) -> None:
    text = problem(override)
    assert all(phrase in text for phrase in phrases), text


def test_later_files_win_and_overrides_win_over_files(tmp_path: Path) -> None:
    first_file = write(tmp_path, "1.yaml", "train: {epochs: 2, seed: 2}\ndata: {sources: [a, b]}\n")
    second = write(tmp_path, "2.yaml", "train: {epochs: 3}\ndata: {sources: [c]}\n")
    settings = load(JobSettings, [first_file, second], ["train.seed=4", "train.seed=5"])
    assert (settings.train.epochs, settings.train.seed) == (3, 5)
    assert [s.uri for s in settings.data.sources] == ["c"]  # a list is replaced as a whole
    assert load(JobSettings, [second, first_file], []).train.epochs == 2


@pytest.mark.parametrize("text", ["", "# only a remark\n", "\ufefftrain: {epochs: 4}\n"])
def test_files_without_settings_leave_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(JobSettings, [write(tmp_path, "a.yaml", text)], []) == JobSettings()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_load_as_written(file: Path) -> None:
    settings = load(JobSettings, [file], []).model_dump()
    for section, values in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        assert settings[section] == settings[section] | values


def test_there_are_shipped_configs() -> None:
    assert {"debug.yaml", "demo.yaml", "pipeline.yaml"} <= {path.name for path in CONFIGS}


def test_the_service_ignores_the_section_of_sweeps_in_a_file_for_every_job(tmp_path: Path) -> None:
    file = write(tmp_path, "all.yaml", "sweep: {trials: 3}\nserve: {port: 8123}\n")
    assert load_service([file], ["sweep.trials=4"]).serve.port == 8123
    with pytest.raises(ConfigError, match=r"^sweeps: unknown key"):
        load_service([write(tmp_path, "typo.yaml", "sweeps: {}\n")], [])
