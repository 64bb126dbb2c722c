"""The main job under `ray job submit`, on a cluster of two nodes with token authentication."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands import PROJECT, wait_until
from tests.e2e.conftest import RAY, Cluster


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
    command = [
        "python",
        "-m",
        "ray_jobs.pipeline",
        "configs/debug.yaml",
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
