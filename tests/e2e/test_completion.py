"""The script of tab completion in a real bash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import PROJECT

_COMPLETE = """
source "$1"
COMP_LINE="finsent $2"
COMP_POINT=${#COMP_LINE}
compopt() { :; }  # is an error outside of a completion
_finsent "$3"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trai", ["train"]),
        ("train de", ["debug", "demo"]),
        ("train demo train.ep", ["train.epochs="]),
        ("train train.trainer=n", ["native"]),  # bash has split the word at "="
    ],
)
def test_bash_completes(tmp_path: Path, line: str, expected: list[str]) -> None:
    command = tmp_path / "finsent"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ray_jobs "$@"\n')
    command.chmod(0o755)
    script = PROJECT / "ray_jobs/completions/finsent.bash"
    process = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", str(script), line, str(command)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
    )
    assert (process.stdout.split(), process.stderr) == (expected, "")
