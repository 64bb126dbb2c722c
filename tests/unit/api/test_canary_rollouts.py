"""Complete canaries through the HTTP application and real models; no request fails in any."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from finsent.registry.registry import Registry
from finsent.rollout.rollout_record import RolloutRecord, RolloutRules
from finsent.rollout.rollouts import Rollouts
from finsent.storage import Location
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.metrics import Metrics
from serve_app.rollout import router
from serve_app.rollout.router import CanaryRouter
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.service import Service
from tests.unit.canaries import ENGINE, RULES, publish
from tests.unit.models import TEXTS

pytestmark = [
    pytest.mark.usefixtures("keep_threads"),
    pytest.mark.cost(6, "serves two models to hundreds of requests"),
]

SHORT, LONG = "Profit rose.", "The bond matures in 2031 and pays 4.25 percent, twice a year"
MAX_REQUESTS = 4_000


@dataclass
class World:
    """A registry with a champion, and versions for its place."""

    registry: Registry
    champion: str
    equal: str
    other_labels: str
    refusing: str  # refuses texts of more than eight tokens


@dataclass
class Replica:
    """A service in this process, and the answers of its clients."""

    service: Service
    client: httpx.AsyncClient
    statuses: Counter[int] = field(default_factory=Counter)
    sent: int = 0

    async def ask(self, text: str, truncate: str = "right", client: str = "") -> str:
        """Send a text, and return the version that answered."""
        headers = {"x-client-id": client} if client else {}
        body = {"text": text, "truncate": truncate}
        response = await self.client.post("/predict", json=body, headers=headers)
        self.statuses[response.status_code] += 1
        self.sent += 1
        version: str = response.json()["model_version"]
        return version

    async def wait_for_the_canary(self) -> None:
        """Wait until a canary gets requests."""
        router = self.service.router
        assert router is not None
        async with asyncio.timeout(60):
            while not router.is_active:
                await asyncio.sleep(0.02)

    async def ask_until_the_end(self, ask: Callable[[int], Any]) -> dict[str, Any]:
        """Send requests until the rollout has ended, and return its description."""
        for first in range(0, MAX_REQUESTS, 8):
            await asyncio.gather(*(ask(i) for i in range(first, first + 8)))
            info = (await self.client.get("/info")).json()
            rollout: dict[str, Any] | None = info.get("rollout")
            if rollout is not None and rollout["status"] != "running":
                return rollout
        raise AssertionError("the rollout has not ended")


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("canaries")
    registry = Registry(folder / "registry")
    champion, equal, other, refusing = (
        publish(tiny, registry, folder, seed, note, length)
        for seed, note, length in ((3, "a", 48), (3, "b", 48), (4, "c", 48), (3, "d", 8))
    )
    return World(registry, champion, equal, other, refusing)


@asynccontextmanager
async def serving(world: World, root: Path, alias: str) -> AsyncIterator[Replica]:
    """Serve an alias."""
    service = Service(world.registry.root, ServeConfig(model=alias, watch_seconds=0.2), ENGINE)
    canary_router = CanaryRouter(service, Rollouts(Location.at(root), world.registry))
    service.router = canary_router
    await service.models.follow()
    app = build_app(service, Keys(None), Metrics(service))
    watching = asyncio.create_task(canary_router.watch())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Replica(service, client)
    watching.cancel()
    await canary_router.close()


def start(
    world: World, root: Path, alias: str, candidate: str, rules: RolloutRules = RULES
) -> Rollouts:
    world.registry.promote(f"version:{world.champion}", alias)
    rollouts = Rollouts(Location.at(root), world.registry)
    rollouts.settle(rollouts.start(alias, world.champion, candidate, None, rules))
    return rollouts


def latest(rollouts: Rollouts, alias: str) -> RolloutRecord:
    record = rollouts.get(alias)
    assert record is not None
    return record


def test_an_equal_version_takes_over(world: World, tmp_path: Path) -> None:
    rollouts = start(world, tmp_path, "equal", world.equal)

    async def test() -> str:
        async with serving(world, tmp_path, "equal") as replica:
            await replica.ask_until_the_end(lambda i: replica.ask(f"{SHORT} {i}"))
            assert set(replica.statuses) == {200}
            async with asyncio.timeout(60):
                while replica.service.model.version != world.equal:
                    await asyncio.sleep(0.02)
            assert replica.service.models.standby is None
            metrics = (await replica.client.get("/metrics")).text
            assert 'finsent_rollout_requests_total{answered_by="canary"}' in metrics
            assert "finsent_rollout_decisions 4.0" in metrics
            return await replica.ask(SHORT)

    assert asyncio.run(test()) == world.equal
    assert world.registry.aliases()["equal"] == world.equal
    record = latest(rollouts, "equal")
    assert (record.status, record.totals.errors) == ("promoted", 0)
    assert record.totals.compared > 0
    actions = [entry.decision.action for entry in rollouts.audit.entries()]
    assert actions == ["start", "advance", "advance", "promote"]


def test_a_version_with_errors_is_rolled_back_and_no_request_fails(
    world: World, tmp_path: Path
) -> None:
    rollouts = start(world, tmp_path, "errors", world.refusing)

    async def test() -> None:
        async with serving(world, tmp_path, "errors") as replica:

            async def ask(i: int) -> None:  # every fourth text is long
                await replica.ask(f"{SHORT if i % 4 else LONG} {i}", "error")

            rollout = await replica.ask_until_the_end(ask)
            assert rollout["status"] == "rolled back"
            assert set(replica.statuses) == {200}
            assert await replica.ask(f"{LONG} again", "error") == world.champion

    asyncio.run(test())
    record = latest(rollouts, "errors")
    assert 3 <= record.totals.errors <= record.totals.requests
    assert record.totals.control_errors == 0
    assert "requests to the canary failed" in record.decisions[-1].reason
    assert world.registry.aliases()["errors"] == world.champion


def test_a_version_with_other_labels_is_rolled_back(world: World, tmp_path: Path) -> None:
    rollouts = start(world, tmp_path, "labels", world.other_labels)

    async def test() -> None:
        async with serving(world, tmp_path, "labels") as replica:
            await replica.ask_until_the_end(lambda i: replica.ask(f"{TEXTS[i % 7]} {i}"))
            assert set(replica.statuses) == {200}

    asyncio.run(test())
    record = latest(rollouts, "labels")
    assert record.status == "rolled back"
    assert "gave another label to" in record.decisions[-1].reason


def test_a_client_stays_with_its_version_and_a_restart_continues(
    world: World, tmp_path: Path
) -> None:
    slow_stages = RULES.replaced(shares=(0.5, 1.0), margin=0.02)  # none ends in this test
    rollouts = start(world, tmp_path, "sticky", world.equal, slow_stages)

    async def test() -> dict[str, str]:
        versions: dict[str, set[str]] = {}
        async with serving(world, tmp_path, "sticky") as replica:
            await replica.wait_for_the_canary()
            for _ in range(3):
                for number in range(20):
                    version = await replica.ask(f"{SHORT} {number}", client=f"desk-{number}")
                    versions.setdefault(f"desk-{number}", set()).add(version)
        in_canary = {client: seen for client, seen in versions.items() if world.equal in seen}
        assert 0 < len(in_canary) < 20
        assert all(seen == {world.equal} or len(seen) == 1 for seen in in_canary.values())
        return {client: seen.pop() for client, seen in versions.items()}

    before = asyncio.run(test())
    counted = latest(rollouts, "sticky").totals.requests
    assert counted == 3 * sum(version == world.equal for version in before.values())
    assert asyncio.run(test()) == before
    assert latest(rollouts, "sticky").totals.requests == 2 * counted


def test_a_version_that_cannot_be_loaded_is_rolled_back(world: World, tmp_path: Path) -> None:
    rollouts = start(world, tmp_path, "missing", "0123456789ab")

    async def test() -> None:
        async with serving(world, tmp_path, "missing") as replica:
            rollout = await replica.ask_until_the_end(lambda i: replica.ask(f"{SHORT} {i}"))
            assert rollout["decisions"][-1]["reason"].startswith("the version cannot be loaded")
            assert set(replica.statuses) == {200}

    asyncio.run(test())
    assert latest(rollouts, "missing").status == "rolled back"


def test_a_canary_that_is_too_slow_is_replaced_by_the_current_version(
    world: World, tmp_path: Path
) -> None:
    rollouts = start(world, tmp_path, "slow", world.equal)

    async def test() -> None:
        async with serving(world, tmp_path, "slow") as replica:
            await replica.wait_for_the_canary()
            for i in range(120):
                sender = Sender(str(i), seconds=1e-9)
                [answer], _ = await replica.service.answer([f"{SHORT} {i}"], None, sender)
                assert isinstance(answer, Answer)
                assert answer.model_version == world.champion

    asyncio.run(test())
    record = latest(rollouts, "slow")
    assert record.status == "rolled back"
    assert record.totals.errors == record.totals.requests > 0


def test_without_its_record_a_canary_gets_no_requests_until_the_record_is_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "_MAX_BLIND_SECONDS", 0.0)
    start(world, tmp_path, "blind", world.equal)
    file = tmp_path / "rollouts" / "blind.json"
    content = file.read_bytes()

    async def versions(replica: Replica) -> set[str]:
        return {await replica.ask(f"{SHORT} {i}") for i in range(40)}

    async def until(replica: Replica, expected: set[str]) -> None:
        async with asyncio.timeout(60):
            while await versions(replica) != expected:
                await asyncio.sleep(0.05)

    async def test() -> None:
        async with serving(world, tmp_path, "blind") as replica:
            both = {world.champion, world.equal}
            await until(replica, both)
            file.write_bytes(b"{")
            await until(replica, {world.champion})
            file.write_bytes(content)
            await until(replica, both)
            assert set(replica.statuses) == {200}

    asyncio.run(test())
