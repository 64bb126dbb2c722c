"""The main job under `ray job submit`, on a cluster of two nodes with token authentication."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ray_jobs.serve import free_port
from tests.e2e.conftest import PROJECT, descendants, environment, wait_until

RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    found = {free_port("127.0.0.1") for _ in range(count)}
    return [*found] if len(found) == count else free_ports(count)


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Two nodes: the dashboard's address, and the environment of a user of the cluster."""
    port, dashboard, client = free_ports(3)
    # Ray's sockets lie below this directory, and their paths must be short.
    home = Path(tempfile.mkdtemp(prefix="fs", dir="/tmp"))
    token = home / "token"
    token.write_text("a-token-for-this-test-only-0123456789abcdef")
    token.chmod(0o600)
    env = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(home)}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [RAY, "start", "--block", "--num-cpus=2", "--object-store-memory=200000000",
             *arguments],
            env=env, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    nodes = [
        start(
            "--head", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={home}/ray",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        )
    ]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until(lambda: _status(f"{address}/api/version") == 401, 120, "the dashboard")
        nodes.append(start(f"--address=127.0.0.1:{port}"))
        wait_until(lambda: _alive_nodes(address, env) == 2, 120, "the second node")
        yield address, env
    finally:
        # Asked politely, a node drains for half a minute.
        for node in nodes:
            for left in descendants(psutil.Process(node.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
            node.kill()
            node.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def _alive_nodes(address: str, env: dict[str, str]) -> int:
    token = Path(env["RAY_AUTH_TOKEN_PATH"]).read_text()
    asked = urllib.request.Request(
        f"{address}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
    except OSError:
        return 0
    return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.timeout(900)  # two nodes start, and every worker of theirs imports torch
def test_the_pipeline_as_a_submitted_job(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, env = cluster
    submit = [RAY, "job", "submit", "--address", address]

    def takes_jobs() -> bool:
        trial = subprocess.run([*submit, "--", "true"], env=env, cwd=tmp_path, capture_output=True)
        return trial.returncode == 0

    wait_until(takes_jobs, 120, "the head to take jobs")
    command = ["python", "-m", "ray_jobs.pipeline", "configs/debug.yaml", "storage.root=artifacts"]
    done = subprocess.run(
        [*submit, "--working-dir", str(PROJECT), "--", *command],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=560,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"job": "pipeline"')]
    assert len(lines) == 1
    result = json.loads(lines[0])
    # A relative root would vanish with the job's working directory: it counts from the home.
    version = Path(env["HOME"]) / "finsent/artifacts/registry/versions" / result["model_version"]
    assert Path(result["version_dir"]) == version
    assert (version / "manifest.json").is_file()

    without = {k: v for k, v in env.items() if k != "RAY_AUTH_TOKEN_PATH"}
    without["RAY_AUTH_TOKEN"] = "another-token-of-the-same-length-0123456789"
    refused = subprocess.run(
        [*submit, "--", "true"],
        env=without, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert refused.returncode != 0


def test_the_upload_is_small(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    create_package(str(PROJECT), package, include_gitignore=True)
    assert 50_000 < package.stat().st_size < 5_000_000
