"""Run jobs as commands, in their own processes or in this one."""

from __future__ import annotations

import importlib
import io
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

from ray_jobs._cli import Finished, Job, invoke

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """A finished process: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        result = json.loads(self.out.splitlines()[-1])
        assert isinstance(result, dict)
        return result


def environment() -> dict[str, str]:
    """Return this process's variables, with this interpreter's commands first and no cluster."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    env.pop("RAY_ADDRESS", None)
    return env


def run_job(
    name: str,
    *arguments: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    stdin: str = "",
    timeout: float = 550,
) -> Done:
    """Run `python -m ray_jobs.NAME ...` in its own process to its end.

    Args:
        name: of a job, or of a module such as `benchmarks.train`.
        timeout: in seconds.
    """
    process = subprocess.run(
        [sys.executable, "-m", name if "." in name else f"ray_jobs.{name}", *arguments],
        cwd=cwd,
        env=env or environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Done(process.returncode, process.stdout, process.stderr)


def start_job(name: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start `python -m ray_jobs.NAME ...` with pipes for stdout and stderr."""
    return subprocess.Popen(
        [sys.executable, "-m", f"ray_jobs.{name}", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job_named(name: str) -> Job:
    """Return the job of `python -m ray_jobs.NAME`."""
    job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
    return job


def invoke_job(name: str, *arguments: str, stdin: str = "") -> Finished:
    """Run a job in this process, in the working directory, on the Ray that is connected."""
    stdin_before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        return invoke(job_named(name), arguments)
    finally:
        sys.stdin = stdin_before


def check_refused(done: Done | Finished, words: list[str]) -> None:
    """Check that a job exited with code 2, an empty stdout and one error line with the words."""
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.err.splitlines()[-1] == errors[0]
    for word in words:
        assert word in errors[0]


def run_driver(module: str, folder: Path, *arguments: str, timeout: float) -> Done:
    """Run a test's program, which has its own cluster without tokens, in a folder."""
    env = environment() | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.run(
        [sys.executable, "-m", module, str(folder), *arguments],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Done(process.returncode, process.stdout, process.stderr)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition until it holds, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    """Return the running processes, without zombies."""
    running = set()
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.add(process)
        except psutil.NoSuchProcess:
            continue
    return running


def descendants(process: psutil.Process) -> set[psutil.Process]:
    """Return all live processes below a process."""
    try:
        return set(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return set()
