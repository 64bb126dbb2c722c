"""Faults under a service that has a replica and a proxy on each node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.faults.balancer import balancer
from benchmarks.faults.load import open_loop
from benchmarks.faults.log_lines import last_lines
from benchmarks.faults.nodes import (
    START_SECONDS,
    NamespacedCluster,
    Node,
    namespaced_cluster,
    wait_until,
)
from benchmarks.faults.record import FaultRecord
from benchmarks.faults.subject import Subject
from finsent.errors import InputError
from serve_app.graph import NAME

PORT = 8000
DEPLOY_SECONDS = 180.0
QUIET_SECONDS = 5.0  # of load before the fault, and after the recovery
RECOVERY_SECONDS = 90.0


@dataclass(frozen=True)
class Service:
    """A running service."""

    cluster: NamespacedCluster
    address: str  # of the load balancer before the nodes

    def running_replicas(self, nodes: tuple[Node, ...]) -> int:
        """Return the number of replicas on nodes that Ray reports as running."""
        addresses = {node.host.address for node in nodes}
        with suppress(httpx.HTTPError, KeyError, ValueError):
            state = self.cluster.get("/api/serve/applications/").json()
            deployments = state["applications"][NAME]["deployments"].values()
            replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
            return sum(
                replica["state"] == "RUNNING" and replica["node_ip"] in addresses
                for replica in replicas
            )
        return 0

    def serves(self, node: Node) -> bool:
        """Return whether a node has a replica, and a proxy that passes a health check."""
        return self.running_replicas((node,)) == 1 and is_healthy(
            f"http://{node.host.address}:{PORT}"
        )


@contextmanager
def running_service(subject: Subject, work: Path) -> Iterator[Service]:
    """Serve a model of a registry on a head and two workers, one replica per node."""
    with namespaced_cluster(1, (2, 2)) as cluster:
        arguments = [
            f"storage.root={subject.root}",
            f"serve.model={subject.model}",
            "serve.host=0.0.0.0",
            f"serve.port={PORT}",
            f"serve.min_replicas={len(cluster.nodes)}",
            f"serve.max_replicas={len(cluster.nodes)}",
            "engine.threads=1",
        ]
        job_log = work / "serve.log"
        job = cluster.start_job("serve", arguments, job_log)
        wait_until(lambda: job.poll() is not None, DEPLOY_SECONDS, "end of `finsent serve`")
        if job.returncode:
            raise InputError(f"benchmarks.faults: {' '.join(last_lines(job_log))}")
        servers = [f"{node.host.address}:{PORT}" for node in cluster.nodes]
        with balancer(servers, work) as address:
            service = Service(cluster, address)
            for node in cluster.nodes:
                wait_until(partial(service.serves, node), START_SECONDS, f"service on {node.host}")
            yield service


def is_healthy(url: str) -> bool:
    """Return whether the proxy at a URL passes the health check of a load balancer."""
    try:
        return httpx.get(f"{url}/-/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def worker_killed(subject: Subject, work: Path) -> FaultRecord:
    """Kill a worker node under load."""
    with running_service(subject, work) as service:
        lost = service.cluster.workers[0]
        remaining = tuple(node for node in service.cluster.nodes if node is not lost)
        count = len(service.cluster.nodes)
        return under_load(
            "serve_worker_sigkill",
            service,
            lost.kill,
            lambda: service.running_replicas(remaining) == count,
        )


def under_load(
    name: str, service: Service, plant: Callable[[], None], has_recovered: Callable[[], bool]
) -> FaultRecord:
    """Plant a fault under load, and return what the clients saw.

    Args:
        name: of the record.
        service: the service.
        plant: causes the fault.
        has_recovered: whether all replicas run again.
    """
    with open_loop(service.address) as answers:
        time.sleep(QUIET_SECONDS)
        plant()
        recovery: float | None = None
        with suppress(InputError):  # no recovery is a result
            recovery = round(wait_until(has_recovered, RECOVERY_SECONDS, "recovery"), 1)
        time.sleep(QUIET_SECONDS)
    return FaultRecord(
        name=name,
        recovery_seconds=recovery,
        requests=answers.count,
        failures=dict(answers.failures),
        slowest_seconds=round(max(answers.seconds, default=0.0), 2),
    )
