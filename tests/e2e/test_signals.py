"""Ctrl-C and SIGTERM: nothing half-written, no process left; SIGKILL: the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Done, alive, descendants, environment, wait_until

COMMAND = (
    "pipeline", "configs/debug.yaml", "storage.root=out", "run.name=stopped", "train.epochs=400",
)  # fmt: skip


def start(project: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *("ray_jobs." + COMMAND[0], *COMMAND[1:])],
        cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def training(project: Path) -> bool:
    # The latest checkpoint may not be in Ray Train's records yet; those some epochs back are.
    names = [p.parent.name for p in project.glob("out/runs/stopped/checkpoint_*/state.json")]
    return any(int(name.rpartition("_")[2]) >= 4 for name in names)


def ingesting(project: Path) -> bool:
    return bool([*project.glob("out/datasets/sample/*")])


def leftovers(project: Path) -> list[Path]:
    return [p for p in (project / "out").rglob("*") if p.name.startswith((".staging", ".probe"))]


@pytest.mark.parametrize(
    ("signum", "ready"),
    [(signal.SIGINT, training), (signal.SIGTERM, ingesting)],
    ids=["SIGINT while training", "SIGTERM while ingesting"],
)
def test_a_signal_leaves_nothing_behind(
    project: Path, signum: signal.Signals, ready: Callable[[Path], bool]
) -> None:
    process = start(project)
    watched = psutil.Process(process.pid)
    wait_until(lambda: ready(project) or process.poll() is not None, 240, "the job to get going")
    children = descendants(watched)
    assert len(children) > 3, "Ray's processes are below the job"
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, err
    assert out == ""
    assert f"interrupted by {signum.name}" in err
    assert "Traceback" not in err
    wait_until(lambda: not alive(children), 60, "Ray's processes to end")
    assert not leftovers(project), leftovers(project)
    assert not (project / "out/registry/versions").is_dir() or not [
        *(project / "out/registry/versions").iterdir()
    ]
    assert not (project / "out/runs/stopped/result.json").exists()


def test_a_killed_job_goes_on_under_the_same_name(job: Callable[..., Done], project: Path) -> None:
    process = start(project)
    wait_until(lambda: training(project) or process.poll() is not None, 240, "a checkpoint")
    workers = set()
    for one in descendants(psutil.Process(process.pid)):
        with suppress(psutil.NoSuchProcess):
            workers |= {one} if "Train" in one.name() else set()
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    # Nobody is left to shut Ray down; its workers notice by themselves.
    wait_until(lambda: not alive(workers), 60, "the workers to end")

    other = job(*COMMAND[:-1], "train.epochs=2", cwd=project)
    assert other.code == 2
    assert "train.epochs=400" in other.err
    # The recipe is longer than a test should be: end it soon after it went on.
    done = start(project)
    first = {p.name for p in project.glob("out/runs/stopped/checkpoint_*")}
    wait_until(
        lambda: (
            bool({p.name for p in project.glob("out/runs/stopped/checkpoint_*")} - first)
            or done.poll() is not None
        ),
        240,
        "a later checkpoint",
    )
    done.send_signal(signal.SIGINT)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 128 + signal.SIGINT, err
    assert "epoch=1," not in err  # it did not begin again
