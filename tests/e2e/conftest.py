"""Real commands in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        found = json.loads(self.out.splitlines()[-1])
        assert isinstance(found, dict)
        return found


def environment() -> dict[str, str]:
    """Ours, with the commands of this interpreter first and no cluster to join."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    env.pop("RAY_ADDRESS", None)
    return env


@pytest.fixture(scope="session")
def job() -> Callable[..., Done]:
    """Run `python -m ray_jobs.NAME ...` to its end."""

    def run(name: str, *arguments: str, cwd: Path, stdin: str = "", timeout: float = 550) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", f"ray_jobs.{name}", *arguments],
            cwd=cwd, env=environment(), input=stdin, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def run_driver(module: str, folder: Path, *arguments: str, timeout: float) -> Done:
    """Run a program of a test that has a cluster of its own, without tokens, in a folder."""
    env = environment() | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), *arguments],
        env=env, cwd=folder, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working directory with the project's configs in it."""
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    return tmp_path


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    """Those that still run; one that nobody has waited for yet is dead."""
    found = set()
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


def descendants(process: psutil.Process) -> set[psutil.Process]:
    """All living processes below one."""
    try:
        return set(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return set()
