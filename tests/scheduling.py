"""A pytest plugin: which tests pytest-xdist runs in one process.

Tests of a file share its fixtures. Integration tests share a Ray, end-to-end tests a cluster and a
service. Slow tests share nothing between files. pytest-xdist 3.8 ignores its groups under pytest
9.2, which no longer reads `_nodeid`.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/integration", "tests/e2e")
# Slow files, the longest first: one that begins last would run alone.
LONGEST = (
    "tests/slow/test_readme.py",
    "tests/slow/test_sweep_signals.py",
    "tests/slow/test_sweep.py",
    "tests/slow/test_elastic.py",
    "tests/slow/test_bench.py",
)


def scope_of(nodeid: str) -> str:
    """What a test is run together with: its folder or its file."""
    path = PurePath(nodeid.partition("::")[0])
    folder = path.parent.as_posix()
    return folder if folder in TOGETHER else path.as_posix()


def order_of(nodeid: str) -> int:
    """Where a test's file comes in the order of collection: the long ones before the others."""
    scope = scope_of(nodeid)
    return LONGEST.index(scope) if scope in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Collect the longest files first; the order within a file stays."""
    items.sort(key=lambda item: order_of(item.nodeid))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives whole folders or files to processes, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called by pytest-xdist; the longest scopes are collected first and so stay in order."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)
