"""The main job under `ray job submit`, on a cluster of two nodes with token authentication."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster import nodes
from finsent.errors import InputError
from tests.commands import PROJECT, wait_until
from tests.e2e.conftest import RAY, Cluster
from tests.readme import sample_rows, write_csv


@pytest.mark.timeout(900)  # every worker imports torch, on two nodes
@pytest.mark.cost(110, "a complete pipeline on processes of two nodes")
def test_the_pipeline_as_a_submitted_job(cluster: Cluster, tmp_path: Path) -> None:
    submit = [RAY, "job", "submit", "--address", cluster.dashboard]

    def takes_jobs() -> bool:
        trial = subprocess.run(
            [*submit, "--", "true"], env=cluster.env, cwd=tmp_path, capture_output=True
        )
        return trial.returncode == 0

    wait_until(takes_jobs, 120, "the head to take jobs")
    write_csv(tmp_path / "rows.csv", sample_rows()[:300])
    command = [
        "python",
        "-m",
        "ray_jobs.pipeline",
        "configs/debug.yaml",
        f"data.sources=[{tmp_path}/rows.csv]",
        "storage.root=artifacts",
        "data.label_noise.enabled=false",
        "evaluate.behavior=null",
        "export.openvino=false",
    ]
    process = subprocess.run(
        [*submit, "--working-dir", str(PROJECT), "--", *command],
        env=cluster.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith('{"job": "pipeline"')]
    assert len(lines) == 1
    result = json.loads(lines[0])
    # A relative root would vanish with the job's working directory: it counts from the home.
    version = cluster.home / "finsent/artifacts/registry/versions" / result["model_version"]
    assert Path(result["version_dir"]) == version
    assert (version / "manifest.json").is_file()
    # The run keeps its model, and in place of its checkpoints a record.
    run_dir = Path(result["run_dir"])
    assert (run_dir / "model" / "model.safetensors").is_file()
    assert (run_dir / "trained.json").is_file()
    assert not [*run_dir.glob("checkpoint_*")]

    other = {k: v for k, v in cluster.env.items() if k != "RAY_AUTH_TOKEN_PATH"}
    other["RAY_AUTH_TOKEN"] = "another-token-of-the-same-length-0123456789"
    refused = subprocess.run(
        [*submit, "--", "true"],
        env=other,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode != 0


def test_the_upload_is_small(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    create_package(str(PROJECT), package, include_gitignore=True)
    assert 50_000 < package.stat().st_size < 5_000_000


def run_cluster(cluster: Cluster, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        env=cluster.env | {"PYTHONPATH": str(PROJECT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_is_submitted_once_and_its_exit_code_is_returned(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "some.csv").write_text("text,label\nProfit rose,positive\n")
    run = ("registry", "run.name=listed", f"storage.root={tmp_path}/out")
    first_run = run_cluster(cluster, tmp_path, "submit", *run)
    assert first_run.returncode == 0, first_run.stderr
    [result] = [
        line for line in first_run.stdout.splitlines() if line.startswith('{"job": "registry"')
    ]
    again = run_cluster(cluster, tmp_path, "submit", *run)
    assert again.returncode == 0
    assert result in again.stdout.splitlines()  # the log of the same job

    failing = ("submit", "train", "run.name=wrong", "train.epochs=none")
    for number in ("", ".2"):  # a run that failed is submitted anew
        failed = run_cluster(cluster, tmp_path, *failing)
        assert failed.returncode == 2, failed.stderr
        assert "train.epochs='none'" in failed.stdout
        assert f"train-wrong{number} at {cluster.dashboard}" in failed.stderr
    status = run_cluster(cluster, tmp_path, "status").stdout
    listed = [line.split()[:2] for line in status.splitlines()[1:]]
    assert ["SUCCEEDED", "registry-listed"] in listed
    assert ["FAILED", "train-wrong"] in listed and ["FAILED", "train-wrong.2"] in listed


def test_a_stopped_job_leaves_no_process(cluster: Cluster, tmp_path: Path) -> None:
    run = ("submit", "--no-wait", "pipeline", "debug", f"storage.root={tmp_path}", "run.name=long")
    submitted = run_cluster(cluster, tmp_path, *run)
    assert submitted.stdout == "pipeline-long\n"

    def driver() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if f"storage.root={tmp_path}" in (process.info["cmdline"] or [])
            and "ray_jobs.pipeline" in process.info["cmdline"]
        ]

    wait_until(lambda: bool(driver()), 240, "the job's driver")
    stopped = run_cluster(cluster, tmp_path, "stop", "pipeline-long")
    assert stopped.stdout == "pipeline-long: STOPPED\n"
    wait_until(lambda: not driver(), 120, "the end of the driver")


def test_where_no_cluster_is_reached_the_remedy_is_one_line(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for variables, problem in (
        ({}, "no cluster is running on this machine. Run `make cluster-up`"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}, "http://127.0.0.1:1: no Ray dashboard"),
    ):
        refused = subprocess.run(
            [sys.executable, "-m", "cluster", "submit", "train"],
            env=env | variables | {"PYTHONPATH": str(PROJECT), "FINSENT_CLUSTER": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: cluster: ") and problem in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_second_cluster_in_the_same_directory_is_refused(cluster: Cluster) -> None:
    with pytest.raises(InputError, match=r"a cluster is running at http.*cluster-down"):
        nodes.start(cluster.home / "ray", workers=0, cpus=1, node_environment={})
