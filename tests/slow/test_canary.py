"""Canaries of a running service by the commands of users. No request fails.

tests/unit/api/test_canary_rollouts.py runs canaries through the application,
tests/e2e/test_rollout_page.py shows one on the page.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from finsent.registry.registry import Registry
from finsent.rollout.rollouts import Rollouts
from finsent.storage import Location
from tests.commands import run_job, wait_until
from tests.served import Served, serving
from tests.unit.canaries import publish

ALIAS = "live"
FOLLOW_SECONDS = 10.0  # in which a running service follows a promotion or a rollback
RULES = ["promote.stages=[20, 50, 100]", "promote.margin=0.1", "promote.slow_factor=20"]


@dataclass
class Versions:
    """Ids of published versions."""

    first: str
    equal: str
    refusing: str  # refuses texts of more than eight tokens


@dataclass
class Clients:
    """Clients that ask all the time, and what they got."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    def ask(self, address: str, ended: Event, number: int) -> None:
        """Send texts until the end, every fourth a long one."""
        with httpx.Client(timeout=30) as client:
            count = 0
            while not ended.is_set():
                text = "Up." if count % 4 else "The bond matures in 2031 and pays 4 %"
                body = {"text": f"{text} {number} {count}", "truncate": "error"}
                response = client.post(f"{address}/predict", json=body)
                self.statuses[response.status_code] += 1
                self.versions[response.json().get("model_version", "none")] += 1
                count += 1


@contextmanager
def asking(served: Served) -> Iterator[Clients]:
    """Ask all the time by two clients."""
    clients, ended = Clients(), Event()
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(clients.ask, served.address, ended, number) for number in range(2)]
        try:
            yield clients
        finally:
            ended.set()
    for task in tasks:
        task.result()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def versions(tiny: Path, root: Path) -> Versions:
    registry = Registry(root / "registry")
    first, equal, refusing = (
        publish(tiny, registry, root, 3, note, length)
        for note, length in (("first", 48), ("equal", 48), ("refusing", 8))
    )
    registry.promote(first, ALIAS)
    return Versions(first, equal, refusing)


@pytest.fixture(scope="module")
def service(root: Path, versions: Versions) -> Iterator[Served]:
    """A service with the default of serve.watch_seconds, and two replicas."""
    assert versions.first
    with serving(
        root,
        "port=0",
        f"model=alias:{ALIAS}",
        "serve.min_replicas=2",
        "serve.max_replicas=2",
        "serve.grpc_port=0",
    ) as served:
        yield served


def job(name: str, root: Path, *arguments: str) -> dict[str, Any]:
    finished = run_job(name, f"storage.root={root}", f"promote.alias={ALIAS}", *arguments, cwd=root)
    assert finished.code == 0, finished.err
    return finished.result


def promote(root: Path, version: str, *arguments: str) -> dict[str, Any]:
    return job(
        "promote",
        root,
        "evaluate.behavior=null",
        "engine.threads=1",
        *arguments,
        f"version:{version}",
    )


def rollout(served: Served) -> dict[str, Any]:
    info: dict[str, Any] = httpx.get(f"{served.address}/info", timeout=30).json()
    result: dict[str, Any] = info.get("rollout", {"status": "none", "candidate": "none"})
    return result


def seconds_until(served: Served, version: str) -> float:
    """Return the seconds until both replicas answer by a version."""
    started = time.monotonic()
    wait_until(
        lambda: {served.ask(f"Profit rose {i}.")["model_version"] for i in range(12)} == {version},
        60,
        "the service to follow",
    )
    return time.monotonic() - started


def wait_for_the_end(served: Served, version: str) -> dict[str, Any]:
    ended: dict[str, Any] = {}  # the other replica may not know the end yet

    def has_ended() -> bool:
        latest = rollout(served)
        ended.update(latest)
        return latest["candidate"] == version and latest["status"] not in ("running", "promoting")

    wait_until(has_ended, 180, "the canary to end")
    return ended


def test_canaries_of_a_running_service(service: Served, root: Path, versions: Versions) -> None:
    with asking(service) as clients:
        started = promote(root, versions.equal, "canary=true", *RULES)
        assert (started["share"], started["replaced"]) == (0.2, versions.first)
        ended = wait_for_the_end(service, versions.equal)
        assert ended["status"] == "promoted"
        assert [decision["share"] for decision in ended["decisions"]] == [0.2, 0.5, 1.0, 1.0]
        assert service.registry.aliases()[ALIAS] == versions.equal
        seconds_until(service, versions.equal)

        promote(root, versions.refusing, "canary=true", *RULES)
        ended = wait_for_the_end(service, versions.refusing)
        assert ended["status"] == "rolled back"
        assert "requests to the canary failed" in ended["decisions"][-1]["reason"]
        assert service.registry.aliases()[ALIAS] == versions.equal

        back_started = time.monotonic()
        back = job("rollback", root)
        command_seconds = time.monotonic() - back_started
        assert back["model_version"] == versions.first
        followed_seconds = seconds_until(service, versions.first)
        assert command_seconds + followed_seconds < 3 * FOLLOW_SECONDS  # other tests run, too

        promote(root, versions.equal)
        followed_seconds = seconds_until(service, versions.equal)
        assert followed_seconds < 3 * FOLLOW_SECONDS
    assert set(clients.statuses) == {200}
    assert set(clients.versions) == {versions.first, versions.equal, versions.refusing}
    entries = Rollouts(Location.at(root), service.registry).audit.entries()
    actions = [entry.decision.action for entry in entries]
    assert actions == [
        "start",
        "advance",
        "advance",
        "promote",
        "start",
        "roll back",
        "roll back",
        "promote",
    ]
