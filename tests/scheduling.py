"""A pytest plugin: how many processes pytest-xdist starts, and which tests each of them runs.

Tests of a file share its fixtures. Integration tests share a Ray, and some end-to-end tests share a
cluster. All other files share nothing. pytest-xdist 3.8 ignores its groups under pytest 9.2, which
no longer reads `_nodeid`.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Scopes of several files.
INTEGRATION = "tests/integration"
CLUSTER = "tests/e2e on the cluster"
CLUSTER_FILES = (
    "tests/e2e/test_cluster.py",
    "tests/e2e/test_cluster_access.py",
    "tests/e2e/test_cluster_serve.py",
    "tests/e2e/test_dvc.py",
    "tests/e2e/test_killed_ingest.py",
)
# The longest first: a scope that begins last would run alone. The process of a scope of one test
# gets the next scope at once, which then waits: a short one.
LONGEST = (
    CLUSTER,
    INTEGRATION,
    "tests/e2e/test_readme.py",
    "tests/e2e/test_signals.py",
    "tests/e2e/test_serve.py",
    "tests/e2e/test_page.py",
    "tests/slow/test_image.py",
    "tests/slow/test_monitoring.py",
    "tests/slow/test_sweep_signals.py",
    "tests/slow/test_bench.py",
    "tests/slow/test_sweep.py",
    "tests/slow/test_readme.py",
    "tests/slow/test_readme_sweep.py",
    "tests/slow/test_two_services.py",
    "tests/slow/test_sweep_node.py",
    "tests/slow/test_bucket_training.py",
    "tests/slow/test_train.py",
    "tests/slow/test_killed_ingest.py",
    "tests/slow/test_slurm.py",
    "tests/slow/test_elastic.py",
    "tests/slow/test_wheel.py",
)


def scope_of(nodeid: str) -> str:
    """Return the tests that one process runs: a file, or several files that share a fixture."""
    path = PurePath(nodeid.partition("::")[0]).as_posix()
    if path in CLUSTER_FILES:
        return CLUSTER
    return INTEGRATION if path.startswith(f"{INTEGRATION}/") else path


def order_of(nodeid: str) -> int:
    """Return the place of a test's scope in the order of collection."""
    scope = scope_of(nodeid)
    return LONGEST.index(scope) if scope in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Collect the longest scopes first; the order within a file stays."""
    items.sort(key=lambda item: order_of(item.nodeid))
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if "cluster" in fixtures and scope_of(item.nodeid) != CLUSTER:
            raise pytest.UsageError(
                f"{item.nodeid}: starts a cluster. Add its file to {CLUSTER!r}."
            )


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than cores: many tests wait for other processes."""
    named = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(named) if named else (os.cpu_count() or 1) + 1


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives complete scopes to processes, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _reschedule(self, node: Any) -> None:
        # A process begins its last test only when it has the next test. pytest-xdist gives the next
        # scope before the last two tests: a long scope would wait for them while others are idle.
        if (
            node.shutting_down
            or not self.workqueue
            or self._pending_of(self.assigned_work[node]) < 2
        ):
            super()._reschedule(node)


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called by pytest-xdist; the longest scopes are collected first and so stay in order."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)
