"""A killed ingest: nothing half-made is ever visible, and the same command finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic import write_rows
from finsent.data.versions.dataset import DatasetVersion
from tests.commands import invoke_job, run_job, start_job, wait_until
from tests.e2e.conftest import Cluster

NAME = "faults"
DATA = (f"data.name={NAME}", "storage.root=out", "data.label_noise.enabled=false")
# A file that shows that a step has begun, below the staging directory.
STEPS = {
    "reading": ".work/rows/*.arrow",
    "settling": ".work/kept/*.arrow",
    "comparing": ".work/edges/*.arrow",
    "writing": "train/*.parquet",
    "reporting": "pictures/*.png",
}


def versions(project: Path) -> list[Path]:
    """What readers see."""
    return sorted(p for p in project.glob(f"out/datasets/{NAME}/*") if not p.name.startswith("."))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_at(step: str, project: Path, arguments: list[str]) -> None:
    """Start an ingest and kill it in a step; no process is left to clean up."""
    folder = project / "out" / "datasets" / NAME
    before = {*folder.glob(".staging-*")}
    process = start_job("ingest", *arguments, cwd=project)

    def is_ready() -> bool:
        staging = {*folder.glob(".staging-*")} - before
        return any([*new.glob(STEPS[step])] for new in staging) or process.poll() is not None

    wait_until(is_ready, 240, step)
    process.kill()
    process.communicate()
    assert process.returncode < 0, f"it ended before it was killed while {step}"


def check_killed_ingest(
    project: Path, rows: int, steps: list[str], env: dict[str, str] | None = None
) -> None:
    """Kill an ingest with its own Ray at each step in turn, then let the same command finish.

    Args:
        env: of the jobs that are not killed.
    """
    first_run = run_job("ingest", *DATA, "data.sources=[sample]", cwd=project, env=env)
    assert first_run.code == 0, first_run.err
    [old] = versions(project)
    before = contents(old)
    source = project / "rows"
    write_rows(source, rows=rows, files=3, seed=5)
    arguments = [*DATA, f"data.sources=[{source}]", "data.max_rejected_fraction=0.05"]
    for step in steps:
        kill_at(step, project, arguments)
        assert versions(project) == [old], step
        assert contents(old) == before, step
    again = run_job("ingest", *arguments, cwd=project, env=env)
    assert again.code == 0, again.err
    assert again.result["counts"]["rows_in"] == rows
    [made] = {*versions(project)} - {old}
    DatasetVersion.open(made)  # compares every file with its digest
    assert not [*(project / "out" / "datasets" / NAME).glob(".staging-*")]


@pytest.mark.cost(40, "three jobs, one with a local Ray of its own")
def test_a_killed_ingest_leaves_the_old_version_complete_and_a_rerun_finishes(
    project: Path, cluster: Cluster
) -> None:
    check_killed_ingest(project, 10_000, ["settling"], cluster.joining)


def test_a_stale_staging_directory_is_invisible(project: Path) -> None:
    """What a killed ingest leaves is neither a version nor in the way of the next."""
    stale = project / "out" / "datasets" / NAME / ".staging-0"
    (stale / "train").mkdir(parents=True)
    refused = invoke_job("train", f"data.name={NAME}", "storage.root=out")
    assert refused.code == 2 and "train.dataset='latest'" in refused.err
