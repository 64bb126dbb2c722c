"""The page shows a canary, on the service without Ray, in a real browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from finsent.inference.config import EngineConfig
from finsent.registry.registry import Registry
from finsent.rollout.outcomes import Outcomes, SignalCounts
from finsent.rollout.rollout_record import RolloutRules
from finsent.rollout.rollouts import Rollouts
from finsent.storage import Location
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.rollout.router import CanaryRouter
from serve_app.service.service import Service
from tests.commands import wait_until
from tests.unit.models import METRICS, saved_model

pytestmark = pytest.mark.e2e

RULES = RolloutRules(
    shares=(0.01, 0.05, 0.2, 0.5, 1.0),
    margin=0.1,
    allowed_disagreement=0.1,
    alpha=0.05,
    slow_factor=2.0,
    compare_share=0.05,
)


@pytest.fixture(scope="module")
def rollouts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Rollouts:
    """Return rollouts with a canary at 5 %."""
    root = tmp_path_factory.mktemp("rollout-page")
    registry = Registry(root / "registry")
    for seed, alias in ((3, "champion"), (4, "challenger")):
        model = saved_model(tiny, root / alias, seed)
        registry.promote(registry.publish(model, METRICS, {}).version, alias)
    rollouts = Rollouts(Location.at(root), registry)
    versions = registry.aliases()
    record = rollouts.start("champion", versions["champion"], versions["challenger"], None, RULES)
    report(rollouts, record.id, 0, 60)
    return rollouts


def report(rollouts: Rollouts, rollout: str, errors: int, requests: int) -> None:
    blocks = [{"error": SignalCounts(int(i < errors), 0, 99)} for i in range(requests)]
    latest = rollouts.report("champion", rollout, Outcomes(blocks))
    assert latest is not None
    rollouts.settle(latest)


@pytest.fixture
def address(rollouts: Rollouts) -> Iterator[str]:
    config = ServeConfig(watch_seconds=0.2)
    engine = EngineConfig(backend="torch", threads=1)
    service = Service(rollouts.registry.root, config, engine)
    server = uvicorn.Server(
        uvicorn.Config(_app(service, rollouts), "127.0.0.1", 0, log_level="warning")
    )

    async def work() -> None:
        await service.models.follow()
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), 120, "the server to start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def _app(service: Service, rollouts: Rollouts) -> Any:
    service.router = CanaryRouter(service, rollouts)
    return build_app(service, Keys(None))


def test_the_page_shows_a_canary_and_its_end(
    browser: Browser, address: str, rollouts: Rollouts, tmp_path: Path
) -> None:
    record = rollouts.get("champion")
    assert record is not None
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address)
    expect(page.locator("#rollout-title")).to_have_text(f"Canary of {record.candidate}")
    expect(page.locator("#stages .current")).to_have_text("5 %")
    expect(page.locator("#rollout-figures")).to_contain_text("0 of 60")
    expect(page.locator("#decisions li")).to_have_count(2)
    page.screenshot(path=tmp_path / "desk.png", full_page=True)
    assert Axe().run(page).violations_count == 0

    report(rollouts, record.id, 5, 5)
    # The page follows the rollout by itself.
    expect(page.locator("#rollout-state")).to_contain_text("was rolled back", timeout=60_000)
    expect(page.locator("#decisions li").first).to_contain_text(
        "roll back: 5 of 65 requests to the canary failed"
    )
    expect(page.locator("#stages .current")).to_have_count(0)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#rollout").screenshot(path=tmp_path / "phone.png")
    page.close()
