"""Tab completion: the scripts, and the candidates that they ask for."""

from __future__ import annotations

import importlib
import re

import pytest

from finsent.config.keys import walk_fields
from ray_jobs.__main__ import job_names, main
from ray_jobs._cli import Job, JobSettings
from ray_jobs._completion import candidates, declaration
from tests.readme import read_page

pytestmark = pytest.mark.unit


def completed(*words: str) -> list[str]:
    return candidates(words, job_names())


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return exited.value.code


def test_first_word_is_a_job() -> None:
    assert completed("") == completed() == job_names()
    assert completed("pr") == ["predict", "promote"]
    assert completed("fly") == []
    assert completed("fly", "") == []


def test_second_word_is_a_shipped_config_or_a_section() -> None:
    assert completed("train", "de") == ["debug", "demo"]
    assert completed("train", "da") == ["data."]
    assert {"demo", "train.", "storage."} <= {*completed("train", "")}
    assert "serve." not in completed("train", "")  # a section that the job does not use
    # `demo` alone would be a text to classify.
    assert completed("classify", "de") == ["debug.yaml", "demo.yaml"]


def test_key_of_the_jobs_settings_is_completed() -> None:
    assert completed("train", "train.ep") == ["train.epochs="]
    assert completed("train", "demo", "train.ep") == ["train.epochs="]
    assert completed("train", "serve.po") == []
    keys = [key for key, _ in walk_fields(JobSettings) if key.startswith("train.")]
    assert completed("train", "train.") == sorted(f"{key}=" for key in keys if "[]" not in key)


def test_key_of_the_jobs_own_section_needs_no_section() -> None:
    assert completed("predict", "form") == ["format="]
    assert completed("predict", "format=") == ["format=csv", "format=jsonl", "format=parquet"]
    assert completed("train", "epo") == []  # `train` accepts no key without its section


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.trainer=n", ["train.trainer=native"]),
        ("ray.worker_logs=", ["ray.worker_logs=false", "ray.worker_logs=true"]),
        ("data.near_duplicates=", []),
        ("train.epochs=", []),
        ("train.no_such_key=", []),
    ],
)
def test_values_of_choices_and_switches_are_completed(word: str, expected: list[str]) -> None:
    assert completed("train", word) == expected


def test_flags_are_completed() -> None:
    assert completed("sweep", "--d") == ["--dry-run"]
    assert completed("train", "--") == ["--help", "--print-config"]


@pytest.mark.parametrize("name", job_names())
def test_declaration_is_read_without_an_import(name: str) -> None:
    job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
    declared = declaration(name)
    assert declared.sections == job.sections
    assert declared.home == job.home
    assert (declared.arguments != "") == bool(job.arguments)
    assert declared.flags == job.flags


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    script = capfd.readouterr().out
    assert "completion candidates" in script
    assert len(script.splitlines()) < 30
    assert completed("completion", shell[0]) == [shell]


def test_quickstart_names_each_shell() -> None:
    text = read_page("docs/quickstart.md")
    assert {*re.findall(r"finsent completion ([a-z]+)", text)} == {"bash", "fish"}
    assert "zsh" in text


def test_wrong_shell_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("completion", "powershell") == 2
    assert capfd.readouterr().err == (
        "error: completion 'powershell': unknown arguments. "
        "Write finsent completion bash|fish|zsh.\n"
    )


def test_completion_is_no_job(capfd: pytest.CaptureFixture[str]) -> None:
    assert "completion" not in job_names()
    assert run("--help") == 0
    listed = [line.split()[0] for line in capfd.readouterr().out.splitlines() if line[:2] == "  "]
    assert "completion" not in listed
