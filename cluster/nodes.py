"""Start and stop a Ray cluster of several nodes on this machine.

Each node is a process `ray start --block` with its own session, temporary directory, object store
and ports, so another Ray on the machine is not disturbed. The record of the cluster is in a
directory that only this user can enter.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil

from finsent.errors import InputError
from finsent.private_directory import is_private
from finsent.records import Record
from serve_app.launch import haproxy_watchdog
from serve_app.launch.environment import FAST
from serve_app.launch.ports import free_port, reserved_ports
from serve_app.launch.private_haproxy import prepare_haproxy

HOST = "127.0.0.1"
START_SECONDS = 90.0  # for the dashboard, and for all nodes to join
STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL
STORE_BYTES = 400_000_000  # object store of a node
WORKER_PORTS = range(10_000, 20_000, 200)  # first ports of blocks, one block per node
RECORD = "cluster.json"
LOG = "node.log"
TOKEN = "token"
HAPROXY = "h"  # folder of HAProxy's files; short: HAProxy limits the paths of its sockets
NODE_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


class NodeRecord(Record):
    """A node of the cluster."""

    pid: int
    started: float  # start of the process, seconds since the epoch: shows a reused process id
    directory: str
    metrics_port: int

    def process(self) -> psutil.Process | None:
        """Return the node's process; None: the process has ended."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 1:
                return process
        return None


class ClusterRecord(Record):
    """A cluster on this machine."""

    schema_version: Literal[1] = 1
    address: str  # HOST:PORT of the head, for ray.init
    dashboard: str  # URL, also of the API for jobs
    token_file: str
    nodes: tuple[NodeRecord, ...]

    @classmethod
    def remedy(cls) -> str:
        """Return how to start a cluster anew."""
        return "Run `make cluster-down`, then `make cluster-up`."


def cluster_directory() -> Path:
    """Return the directory that FINSENT_CLUSTER names, by default one below /tmp.

    Its path must be short: the directory has Ray's sockets, and the path of a socket has at most
    107 characters.
    """
    return Path(os.environ.get("FINSENT_CLUSTER") or f"/tmp/finsent-cluster-{os.geteuid()}")


def current(directory: Path) -> ClusterRecord | None:
    """Return the record of the cluster in a directory; None: no cluster is running.

    Raises:
        InputError: the directory belongs to another user, or the record is damaged.
    """
    if not (directory / RECORD).is_file():
        return None
    _check_private(directory)
    return ClusterRecord.read(directory / RECORD)


def environment(record: ClusterRecord) -> dict[str, str]:
    """Return the variables by which Ray's commands and clients reach the cluster."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": record.token_file,
        "RAY_ADDRESS": record.address,  # of ray.init
        "RAY_API_SERVER_ADDRESS": record.dashboard,  # of Ray's commands for jobs
    }


@dataclass(frozen=True)
class _NodeStarter:
    """Starts nodes that share an environment and a number of CPUs."""

    directory: Path  # of the cluster
    env: dict[str, str]
    cpus: int

    def start(self, name: str, first_worker_port: int, arguments: Sequence[str]) -> NodeRecord:
        """Start a node in its own session.

        Args:
            name: folder of the node in the cluster's directory.
            first_worker_port: of the node's block of ports.
            arguments: more arguments of `ray start`.
        """
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        ports = dict(zip(NODE_PORTS, free_ports(len(NODE_PORTS)), strict=True))
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            f"--node-ip-address={HOST}",
            f"--num-cpus={self.cpus}",
            f"--object-store-memory={STORE_BYTES}",
            f"--temp-dir={directory}",
            f"--min-worker-port={first_worker_port}",
            f"--max-worker-port={first_worker_port + WORKER_PORTS.step - 1}",
            *(f"--{option}={port}" for option, port in ports.items()),
            *arguments,
        ]
        with (directory / LOG).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal does not end the cluster
            )
        return NodeRecord(
            pid=process.pid,
            started=psutil.Process(process.pid).create_time(),
            directory=str(directory),
            metrics_port=ports["metrics-export-port"],
        )


def start(
    directory: Path,
    workers: int,
    cpus: int,
    node_environment: dict[str, str],
    *,
    serves_fast: bool = False,
) -> ClusterRecord:
    """Start a head with a dashboard, and workers that join it.

    Args:
        directory: gets the record, the token, logs and sockets.
        workers: number of nodes next to the head.
        cpus: logical CPUs of each node.
        node_environment: more variables of the nodes' environment.
        serves_fast: whether services on the cluster get HAProxy, as `serve.fast` does on a local
            Ray.

    Raises:
        InputError: a cluster is running in the directory, or the nodes did not start in time. No
            process remains.
    """
    token_file = _make_directory(directory)
    if serves_fast:
        node_environment = {**node_environment, **_serve_environment(directory)}
    port, dashboard_port, client_port = free_ports(3)
    address, dashboard = f"{HOST}:{port}", f"http://{HOST}:{dashboard_port}"
    head_arguments = (
        "--head",
        f"--port={port}",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={client_port}",
    )
    head_ports, *worker_ports = _free_worker_ports(1 + workers)
    starter = _NodeStarter(directory, process_environment(node_environment, token_file), cpus)
    nodes: list[NodeRecord] = []
    with ExitStack() as on_failure:
        on_failure.callback(lambda: stop_nodes(nodes))
        nodes.append(starter.start("head", head_ports, head_arguments))
        _wait_until(
            lambda: _is_ready(dashboard), nodes, f"the dashboard at {dashboard} did not answer"
        )
        for number, first_port in enumerate(worker_ports, 1):
            nodes.append(starter.start(f"worker-{number}", first_port, (f"--address={address}",)))
        _wait_until(
            lambda: len(alive_nodes(dashboard, token_file)) == len(nodes),
            nodes,
            f"fewer than {len(nodes)} nodes joined",
        )
        record = ClusterRecord(
            address=address, dashboard=dashboard, token_file=str(token_file), nodes=tuple(nodes)
        )
        record.write(directory / RECORD)
        on_failure.pop_all()
    return record


def _make_directory(directory: Path) -> Path:
    """Make the cluster's directory anew, and return its file with a new token.

    Raises:
        InputError: a cluster is running in the directory, or other users may enter it.
    """
    if (running := current(directory)) and any(node.process() for node in running.nodes):
        raise InputError(
            f"cluster: a cluster is running at {running.dashboard}. Run `make cluster-down` first."
        )
    if directory.is_symlink() or directory.exists():
        _check_private(directory)
        _remove(directory)
    directory.mkdir(mode=0o700)
    token_file = directory / TOKEN
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32))
    return token_file


def _serve_environment(directory: Path) -> dict[str, str]:
    """Return the variables of nodes that serve through HAProxy, whose files are in the cluster's.

    The ports of the helpers are free now, and no process reserves them.
    """
    with reserved_ports() as ports:
        return {**FAST, **prepare_haproxy(directory / HAPROXY, ports)}


def process_environment(more: dict[str, str], token_file: Path) -> dict[str, str]:
    """Return the environment of the nodes: this process's, with more variables."""
    env = {
        **os.environ,
        **more,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    env.pop("RAY_ADDRESS", None)  # nodes would join that cluster
    return env


def stop(directory: Path) -> int:
    """End all processes of the cluster and remove its directory.

    Returns:
        the number of nodes that were running.
    """
    record = current(directory)
    if record is None:
        return 0
    running = stop_nodes(record.nodes)
    _remove(directory)
    return running


def _remove(directory: Path) -> None:
    """Remove a cluster's directory, and end the HAProxies that the directory has records of."""
    haproxy_watchdog.end_haproxies(directory / HAPROXY)
    shutil.rmtree(directory, ignore_errors=True)


def stop_nodes(nodes: Sequence[NodeRecord]) -> int:
    """End the processes of nodes.

    Returns:
        the number of nodes that were running.
    """
    running = [process for node in nodes if (process := node.process())]
    # SIGTERM to `ray start` alone drains the node for half a minute. Its children end at once.
    processes = [*running]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            processes += process.children(recursive=True)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return len(running)


def alive_nodes(dashboard: str, token_file: Path) -> list[str]:
    """Return the ids of the nodes that the dashboard reports as alive; empty without an answer."""
    headers = {"Authorization": f"Bearer {token_file.read_text()}"}
    try:
        response = httpx.get(
            f"{dashboard}/nodes", params={"view": "summary"}, headers=headers, timeout=5
        )
        summaries = response.json()["data"]["summary"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []
    return [
        node["raylet"]["nodeId"] for node in summaries if node["raylet"].get("state") == "ALIVE"
    ]


def free_ports(count: int) -> list[int]:
    """Return distinct ports of the loopback that no process listens on."""
    ports: list[int] = []
    while len(ports) < count:
        ports.append(free_port(HOST, ports))
    return ports


def _free_worker_ports(count: int) -> list[int]:
    """Return the first ports of random blocks in which no process listens."""
    listening = {
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    free = [
        first_port
        for first_port in WORKER_PORTS
        if listening.isdisjoint(range(first_port, first_port + WORKER_PORTS.step))
    ]
    if len(free) < count:
        raise InputError(
            f"cluster: {count} nodes need {count} free blocks of {WORKER_PORTS.step} ports, and "
            f"{len(free)} are free. Start fewer nodes."
        )
    return random.sample(free, count)


def _wait_until(is_done: Callable[[], bool], nodes: Sequence[NodeRecord], problem: str) -> None:
    """Wait for a condition while all nodes run.

    Raises:
        InputError: a node ended, or the time is over: the problem, and the last line of a log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_done():
        ended = next((node for node in nodes if not _is_running(node)), None)
        if ended or time.monotonic() > deadline:
            log = Path((ended or nodes[0]).directory) / LOG
            reason = "a node ended" if ended else f"{problem} within {START_SECONDS:.0f} seconds"
            raise InputError(f"cluster: {reason}. Read {str(log)!r}. {_last_line(log)}")
        time.sleep(0.2)


def _is_running(node: NodeRecord) -> bool:
    process = node.process()
    return process is not None and process.status() != psutil.STATUS_ZOMBIE


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    return next((f"Its last line: {line}" for line in reversed(lines) if line), "It is empty.")


def _is_ready(dashboard: str) -> bool:
    """Return whether the dashboard answers, which is a refusal without a token."""
    try:
        return httpx.get(f"{dashboard}/api/version", timeout=2).status_code == 401
    except httpx.HTTPError:
        return False


def _check_private(directory: Path) -> None:
    if not is_private(directory):
        raise InputError(
            f"cluster: {str(directory)!r} is not a directory of this user with mode 0700. "
            "Remove it."
        )
