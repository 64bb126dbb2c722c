"""The checks of this project: `make`, pre-commit and the programs of CI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.commands import PROJECT

pytestmark = pytest.mark.cost(1, "starts make or bash")


def hooks() -> dict[str, dict[str, object]]:
    """The hooks of pre-commit by the command that each runs, without its directory."""
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook for repository in config["repos"] for hook in repository["hooks"]]
    return {hook["entry"].removeprefix(".venv/bin/"): hook for hook in entries}


def lint_commands() -> list[str]:
    """The commands of `make lint`, without their directory."""
    recipe = (PROJECT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2]
    lines = recipe.partition("\n\n")[0].splitlines()[1:]
    return [line.strip().removeprefix("$(BIN)/") for line in lines]


def test_a_hook_finds_its_files_where_make_lint_lets_its_command_find_them() -> None:
    common_names = set(lint_commands()) & set(hooks())
    assert common_names == {"mypy", "lint-imports", "codespell", "actionlint"}
    assert {
        name: hooks()[name].get("pass_filenames", True) for name in common_names
    } == dict.fromkeys(common_names, False)


def test_each_command_of_make_lint_is_a_hook() -> None:
    programs = {entry.split()[0] for entry in hooks()}
    words = [set(command.replace("$(BIN)/", "").split()) for command in lint_commands()]
    assert all(programs & command for command in words), words


def test_unit_tests_on_no_python_fail() -> None:
    done = subprocess.run(
        ["make", "test-python", "VERSIONS=3.98 3.99"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "error: VERSIONS='3.98 3.99': no such Python is installed" in done.stderr


@pytest.mark.parametrize(("user", "prefix"), [(0, ""), (1000, "sudo ")])
def test_missing_programs_are_installed_as_root(tmp_path: Path, user: int, prefix: str) -> None:
    """The path leads to programs that log their calls in place of the system's."""
    log = tmp_path / "log"
    programs = {
        "id": f"echo {user}",
        "apt-get": f'echo "apt-get $*" >> {log}',
        "sudo": f'echo "sudo $*" >> {log}',
        "present": "",
    }
    for name, body in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    script: list[str | Path] = ["/bin/bash", PROJECT / ".ci" / "programs"]
    env = {**os.environ, "PATH": str(tmp_path)}
    subprocess.run([*script, "present"], env=env, check=True, timeout=60)
    assert not log.exists()
    subprocess.run([*script, "present", "finsent-none"], env=env, check=True, timeout=60)
    assert log.read_text().splitlines() == [
        f"{prefix}apt-get update -qq",
        f"{prefix}apt-get install -y -qq finsent-none",
    ]
