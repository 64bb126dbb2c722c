"""The command `finsent JOB ...`."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from ray_jobs.__main__ import job_names, main
from ray_jobs.train import JOB
from tests.commands import PROJECT

pytestmark = pytest.mark.unit


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


def test_help_lists_each_job_with_its_summary(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capfd.readouterr().out
    listed = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert [line[0] for line in listed] == job_names()
    assert ["train", "Fine-tune a backbone on a dataset version."] in listed


def test_every_listed_name_is_a_job(capfd: pytest.CaptureFixture[str]) -> None:
    for name in job_names():
        assert run(name, "--help") == 0
        assert capfd.readouterr().out.startswith(f"usage: finsent {name} [CONFIG.yaml ...]")


def test_job_gets_its_arguments_and_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "train.epochs=3", "--print-config") == 0
    assert "epochs: 3" in capfd.readouterr().out
    assert run("train", "train.epochz=3") == 2
    assert "train.epochs" in capfd.readouterr().err


def test_unknown_job_gets_a_suggestion(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("trian") == 2
    assert capfd.readouterr().err == ("error: JOB='trian': no such job. Did you mean 'train'?\n")
    assert run("fly") == 2
    assert JOB.name in capfd.readouterr().err


def test_shipped_configuration_is_named_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("debug", "debug.yaml"):
        assert run("train", name, "--print-config") == 0
        assert "backbone: tiny" in capfd.readouterr().out
    assert run("classify", "debug.yaml", "--print-config") == 0  # `debug` alone would be a text
    assert "backbone: tiny" in capfd.readouterr().out
    (tmp_path / "debug.yaml").write_text("model: {backbone: mine}\n")
    assert run("train", "debug.yaml", "--print-config") == 0
    assert "backbone: mine" in capfd.readouterr().out
    assert run("train", "debugg") == 2
    assert "debugg" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(("train", "debug"), "backbone: tiny"), (("demo",), "backbone: demo")],
)
def test_file_without_a_suffix_hides_no_shipped_configuration(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("debug", "demo"):
        (tmp_path / name).write_text("model: {backbone: mine}\n")
    assert run(*arguments, "--print-config") == 0
    assert line in capfd.readouterr().out


def _imported(file: Path) -> set[str]:
    """Return the modules of ray_jobs that a file imports."""
    modules = set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ray_jobs":
            modules |= {f"ray_jobs.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray_jobs."):
            modules.add(str(node.module))
    return modules


def test_jobs_are_thin() -> None:
    files = sorted((PROJECT / "ray_jobs").glob("*.py"))
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) < 2_400
    importers = Counter(module for file in files for module in _imported(file))
    assert importers.pop("ray_jobs._cli") > 2
    shared = {module: count for module, count in importers.items() if count > 2}
    assert not shared, "move what several jobs share to finsent"


def test_console_script_is_this_command() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"finsent": "ray_jobs.__main__:main"}
