"""Canaries by real models and the real router: how often a worse version is stopped, and when.

tests/unit/api/test_canary_rollouts.py runs one rollout of each kind.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from finsent.registry.registry import Registry
from finsent.rollout.rollout_record import RolloutRecord
from finsent.rollout.rollouts import Rollouts
from finsent.storage import Location
from serve_app.config import ServeConfig
from serve_app.rollout.router import CanaryRouter
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.service import Service
from tests.unit.canaries import ENGINE, RULES, publish

ROLLOUTS = 20
MORE_ERRORS = 0.02  # share of long texts, which the worse version refuses
MAX_REQUESTS = 500  # to the canary, within which it must be stopped
SHORT, LONG = "Profit rose.", "The bond matures in 2031 and pays 4.25 percent, twice a year"
HALF = RULES.replaced(shares=(0.5, 1.0), margin=0.02, compare_share=0.02)


@dataclass
class World:
    registry: Registry
    champion: str
    equal: str
    refusing: str


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("bars")
    registry = Registry(folder / "registry")
    versions = (
        publish(tiny, registry, folder, 3, note, length)
        for note, length in (("first", 48), ("equal", 48), ("refusing", 8))
    )
    return World(registry, *versions)


async def run_rollout(world: World, root: Path, candidate: str, number: int) -> RolloutRecord:
    """Send requests until the canary has ended or got MAX_REQUESTS; check that none fails."""
    world.registry.promote(f"version:{world.champion}", "served")
    rollouts = Rollouts(Location.at(root), world.registry)
    rollouts.settle(rollouts.start("served", world.champion, candidate, None, HALF))
    service = Service(world.registry.root, ServeConfig(model="served"), ENGINE)
    service.router = router = CanaryRouter(service, rollouts)
    await service.models.follow()
    chance = random.Random(number)
    for request in range(MAX_REQUESTS * 3):
        if request % 20 == 0:
            await router.follow()
            record = router.record
            assert record is not None
            if record.status != "running" or record.totals.requests >= MAX_REQUESTS:
                return record
        text = LONG if chance.random() < MORE_ERRORS else SHORT
        sender = Sender(str(request))
        [answer], _ = await service.answer([f"{text} {number} {request}"], "error", sender)
        assert isinstance(answer, Answer)
    raise AssertionError("the canary got too few requests")


def ends(world: World, root: Path, candidate: str) -> Counter[str]:
    return Counter(
        asyncio.run(run_rollout(world, root / str(number), candidate, number)).status
        for number in range(ROLLOUTS)
    )


def test_worse_versions_are_stopped_and_equal_ones_are_not(world: World, tmp_path: Path) -> None:
    worse = ends(world, tmp_path / "worse", world.refusing)
    equal = ends(world, tmp_path / "equal", world.equal)
    assert worse["rolled back"] >= 0.95 * ROLLOUTS, worse
    # At a rate of 5 %, one of 20 is expected, and four would be a chance of 2 %.
    assert equal["rolled back"] <= 3, equal
