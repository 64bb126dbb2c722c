"""The page shows a canary, on the service without Ray, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from finsent.inference.config import EngineConfig
from finsent.rollout.outcomes import Outcomes, SignalCounts
from finsent.rollout.rollouts import Rollouts
from finsent.storage import Location
from serve_app.config import ServeConfig
from serve_app.rollout.router import CanaryRouter
from serve_app.service.service import Service
from tests.served import serving_in_thread
from tests.unit import canaries

pytestmark = pytest.mark.e2e

RULES = canaries.RULES.replaced(shares=(0.01, 0.05, 0.2, 0.5, 1.0))


@pytest.fixture(scope="module")
def rollouts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Rollouts:
    """Return rollouts with a canary at 5 %."""
    root = tmp_path_factory.mktemp("rollout-page")
    registry = canaries.published_pair(tiny, root)
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
    service.router = CanaryRouter(service, rollouts)
    with serving_in_thread(service) as address:
        yield address


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
