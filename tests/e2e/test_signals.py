"""Ctrl-C: nothing half-written, no process left. SIGKILL: the same command resumes."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.commands import alive, check_refused, descendants, invoke_job, start_job, wait_until
from tests.readme import sample_rows, write_csv

COMMAND = (
    "pipeline",
    "configs/debug.yaml",
    "storage.root=out",
    "run.name=stopped",
    "train.epochs=400",
    "data.label_noise.enabled=false",
)
# Each worker costs 6 CPU seconds per start, and fewer rows make epochs short.
ALONE = (*COMMAND, "data.sources=[rows.csv]", "train.num_workers=1")


def is_training(project: Path) -> bool:
    """Whether some epochs are saved: Ray Train's records may lack the newest checkpoint."""
    names = [p.parent.name for p in project.glob("out/runs/stopped/checkpoint_*/state.json")]
    return any(int(name.rpartition("_")[2]) >= 3 for name in names)


def is_ingesting(project: Path) -> bool:
    return bool([*project.glob("out/datasets/sample/*")])


def leftovers(project: Path) -> list[Path]:
    return [p for p in (project / "out").rglob("*") if p.name.startswith((".staging", ".probe"))]


def check_signal(project: Path, signum: signal.Signals) -> None:
    """Send a signal to the pipeline: while it trains, or, of SIGTERM, while it ingests."""
    is_ready = is_ingesting if signum == signal.SIGTERM else is_training
    process = start_job(*COMMAND, cwd=project)
    watched = psutil.Process(process.pid)
    wait_until(lambda: is_ready(project) or process.poll() is not None, 240, "the job to get going")
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
    assert not [*project.glob("out/registry/versions/*")]
    assert not (project / "out/runs/stopped/result.json").exists()


@pytest.mark.timeout(900)
@pytest.mark.cost(100, "the pipeline starts twice, with its own Ray")
def test_a_killed_job_resumes_under_the_same_name_and_ctrl_c_ends_it_cleanly(
    project: Path,
) -> None:
    write_csv(project / "rows.csv", sample_rows()[:300])
    process = start_job(*ALONE, cwd=project)
    wait_until(lambda: is_training(project) or process.poll() is not None, 240, "a checkpoint")
    workers = set()
    for child in descendants(psutil.Process(process.pid)):
        with suppress(psutil.NoSuchProcess):
            workers |= {child} if "Train" in child.name() else set()
    assert workers
    process.kill()
    process.communicate()
    # No process is left to shut Ray down; its workers notice by themselves.
    wait_until(lambda: not alive(workers), 60, "the workers to end")

    check_refused(invoke_job(*ALONE, "train.epochs=2"), ["train.epochs=400"])

    checkpoints = {p.name for p in project.glob("out/runs/stopped/checkpoint_*")}
    process = start_job(*ALONE, cwd=project)
    children: set[psutil.Process] = set()

    def has_resumed() -> bool:
        children.update(descendants(psutil.Process(process.pid)))
        later = {p.name for p in project.glob("out/runs/stopped/checkpoint_*")} - checkpoints
        return bool(later) or process.poll() is not None

    # The recipe is longer than a test should be: end it soon after it has resumed.
    wait_until(has_resumed, 240, "a later checkpoint")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, err
    assert out == ""
    assert "interrupted by SIGINT" in err
    assert "epoch=1," not in err and "Traceback" not in err
    wait_until(lambda: not alive(children), 60, "Ray's processes to end")
    assert not leftovers(project), leftovers(project)
    assert not [*project.glob("out/registry/versions/*")]
    assert not (project / "out/runs/stopped/result.json").exists()
