"""One cluster for all tests that submit jobs or join one: two nodes, tokens, its own ports."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from serve_app.launch.ports import free_port
from tests.commands import descendants, environment, wait_until

RAY = str(Path(sys.executable).parent / "ray")
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
)
WORKER_PORTS = range(10_000, 20_000, 200)  # the first of each node's own 200


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its dashboard, its address, and the environment of its users."""

    dashboard: str
    address: str
    home: Path
    env: dict[str, str]

    @property
    def joining(self) -> dict[str, str]:
        """The environment of a job that joins the cluster."""
        return self.env | {"RAY_ADDRESS": self.address}


def free_ports(count: int) -> list[int]:
    """Different free ports."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port("127.0.0.1"))
    return [*ports]


def start_node(
    home: Path, env: dict[str, str], first: int, *arguments: str
) -> subprocess.Popen[bytes]:
    """Start a node on ports of its own, workers from the first one on."""
    ports = zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True)
    return subprocess.Popen(
        [
            RAY,
            "start",
            "--block",
            "--num-cpus=2",
            "--object-store-memory=200000000",
            f"--min-worker-port={first}",
            f"--max-worker-port={first + 199}",
            *(f"--{name}={port}" for name, port in ports),
            *arguments,
        ],
        env=env,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="package")  # so that it ends before unit tests follow in this process
def cluster() -> Iterator[Cluster]:
    """Two nodes of two logical CPUs each."""
    port, dashboard, client = free_ports(3)
    # Ray's sockets are below this directory, and their paths must be short.
    home = Path(tempfile.mkdtemp(prefix="fs", dir="/tmp"))
    token = home / "token"
    token.write_text("a-token-for-these-tests-only-0123456789abcdef")
    token.chmod(0o600)
    env = environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "HOME": str(home),
    }
    first, second = random.sample(WORKER_PORTS, 2)
    head = start_node(
        home,
        env,
        first,
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--temp-dir={home}/ray",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
    )
    nodes = [head]
    url = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until(lambda: status_code(f"{url}/api/version") == 401, 120, "the dashboard")
        nodes.append(start_node(home, env, second, f"--address=127.0.0.1:{port}"))
        wait_until(lambda: alive_nodes(url, token) == 2, 120, "the second node")
        yield Cluster(url, f"127.0.0.1:{port}", home, env)
    finally:
        # On SIGTERM, a node drains for half a minute.
        for node in nodes:
            for process in descendants(psutil.Process(node.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            node.kill()
            node.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def alive_nodes(url: str, token: Path) -> int:
    """How many nodes the dashboard reports as alive."""
    request = urllib.request.Request(
        f"{url}/nodes?view=summary", headers={"Authorization": f"Bearer {token.read_text()}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            nodes = json.load(response)["data"]["summary"]
    except OSError:
        return 0
    return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)


def status_code(url: str) -> int:
    """The HTTP status of a GET; 0: no answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
