"""A Ray cluster whose nodes have network and PID namespaces of their own.

When the first process of a PID namespace dies, the kernel kills all others, as when a machine
loses its power. The nodes share the machine's files.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.faults.network import Host, network
from cluster.nodes import HAPROXY, alive_nodes, process_environment
from finsent.adapters.ray_core import ENVIRONMENT
from finsent.errors import InputError
from serve_app.launch.node import node_environment

STORE_BYTES = 200_000_000  # object store of a node
START_SECONDS = 120.0
DASHBOARD_PORT = 8265
GCS_PORT = 6379
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    host: Host
    directory: Path
    starter: subprocess.Popen[bytes]  # `unshare`, the parent of the namespace's first process

    def first_process(self) -> psutil.Process:
        """Return the first process of the node's PID namespace."""
        [process] = psutil.Process(self.starter.pid).children()
        return process

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the node."""
        with suppress(psutil.NoSuchProcess, ValueError):  # ValueError: the node has ended
            first = self.first_process()
            return [first, *first.children(recursive=True)]
        return []

    def actors(self, name: str) -> list[psutil.Process]:
        """Return the node's processes whose title, which Ray sets, contains a name."""
        actors = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(process.cmdline()):
                    actors.append(process)
        return actors

    def kill(self) -> None:
        """Kill all processes of the node at once."""
        with suppress(psutil.NoSuchProcess, ValueError):
            self.first_process().send_signal(signal.SIGKILL)
        self.starter.kill()
        self.starter.wait(_STOP_SECONDS)


@dataclass(frozen=True)
class NamespacedCluster:
    """A running cluster."""

    head: Node
    workers: tuple[Node, ...]
    token_file: Path

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The head and the workers."""
        return (self.head, *self.workers)

    @property
    def dashboard(self) -> str:
        """URL of the dashboard."""
        return f"http://{self.head.host.address}:{DASHBOARD_PORT}"

    def get(self, path: str) -> httpx.Response:
        """Return the dashboard's answer to a request."""
        headers = {"Authorization": f"Bearer {self.token_file.read_text()}"}
        return httpx.get(f"{self.dashboard}{path}", headers=headers, timeout=10)

    def start_job(self, name: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a job of finsent on the head.

        Args:
            name: of the job.
            arguments: config files and settings.
            log: gets stderr.
        """
        namespaces = ["--net", "--pid", "--mount", "--wdns=/"]
        enter = ["nsenter", "--target", str(self.head.first_process().pid), *namespaces, "--"]
        command = [sys.executable, "-m", f"ray_jobs.{name}", *arguments]
        env = process_environment(ENVIRONMENT, self.token_file) | {
            "RAY_ADDRESS": f"{self.head.host.address}:{GCS_PORT}"
        }
        with log.open("wb") as file:
            return subprocess.Popen(
                [*enter, *command], env=env, stdout=subprocess.DEVNULL, stderr=file
            )


def wait_until(is_done: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition, and return the seconds that passed.

    Raises:
        InputError: the condition does not hold in time.
    """
    start = time.monotonic()
    while not is_done():
        if time.monotonic() - start > seconds:
            raise InputError(f"benchmarks.faults: no {what} within {seconds:.0f} seconds.")
        time.sleep(0.1)
    return time.monotonic() - start


@contextmanager
def namespaced_cluster(head_cpus: int, worker_cpus: Sequence[int]) -> Iterator[NamespacedCluster]:
    """Start a cluster, and remove its processes, files and network when the context ends.

    Args:
        head_cpus: logical CPUs of the head.
        worker_cpus: logical CPUs of each worker node.
    """
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as name,
        network(1 + len(worker_cpus)) as hosts,
    ):
        directory = Path(name)
        token_file = directory / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
        nodes: list[Node] = []
        try:
            nodes.append(_start_head(hosts[0], directory, token_file, head_cpus))
            for host, cpus in zip(hosts[1:], worker_cpus, strict=True):
                join = [f"--address={hosts[0].address}:{GCS_PORT}", f"--num-cpus={cpus}"]
                nodes.append(_start_node(host, directory, token_file, join))
            cluster = NamespacedCluster(nodes[0], tuple(nodes[1:]), token_file)
            wait_until(
                lambda: len(alive_nodes(cluster.dashboard, token_file)) == len(nodes),
                START_SECONDS,
                f"cluster of {len(nodes)} nodes",
            )
            yield cluster
        finally:
            for node in nodes:
                node.kill()


def _start_head(host: Host, directory: Path, token_file: Path, cpus: int) -> Node:
    """Start the head, and wait until its dashboard answers."""
    dashboard = [f"--dashboard-host={host.address}", f"--dashboard-port={DASHBOARD_PORT}"]
    arguments = ["--head", f"--port={GCS_PORT}", f"--num-cpus={cpus}", *dashboard]
    head = _start_node(host, directory, token_file, arguments)
    url = f"http://{host.address}:{DASHBOARD_PORT}"
    wait_until(lambda: bool(alive_nodes(url, token_file)), START_SECONDS, "answer of the dashboard")
    return head


def _start_node(host: Host, directory: Path, token_file: Path, arguments: Sequence[str]) -> Node:
    """Start a node in the host's network namespace and in a new PID namespace."""
    folder = directory / host.address.rpartition(".")[2]
    folder.mkdir(mode=0o700)
    enter = ["ip", "netns", "exec", host.namespace]
    with_parent = ["setpriv", "--pdeathsig", "KILL"]  # `unshare` ends the node then
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block"]
    options = [
        f"--node-ip-address={host.address}",
        f"--object-store-memory={STORE_BYTES}",
        f"--temp-dir={folder}",
    ]
    variables = ENVIRONMENT | node_environment(folder / HAPROXY)
    env = process_environment(variables, token_file)
    with (folder / "node.log").open("wb") as log:
        starter = subprocess.Popen(
            [*with_parent, *enter, *unshare, *ray, *options, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Node(host, folder, starter)
