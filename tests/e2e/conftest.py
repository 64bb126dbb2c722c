"""One cluster for all tests that submit jobs or join one: two nodes, tokens, its own ports."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import nodes
from tests.commands import environment

RAY = str(Path(sys.executable).parent / "ray")


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


@pytest.fixture(scope="package")  # so that it ends before unit tests follow in this process
def cluster() -> Iterator[Cluster]:
    """Two nodes of two logical CPUs each."""
    # Ray's sockets are below this directory, and their paths must be short.
    home = Path(tempfile.mkdtemp(prefix="fs", dir="/tmp"))
    base = environment() | {"RAY_worker_niceness": "0", "HOME": str(home)}
    try:
        record = nodes.start(
            home / "ray", workers=1, cpus=2, node_environment=base, serves_fast=True
        )
        env = base | nodes.environment(record)
        del env["RAY_ADDRESS"]
        yield Cluster(record.dashboard, record.address, home, env)
    finally:
        nodes.stop(home / "ray")
        shutil.rmtree(home, ignore_errors=True)
