"""A pytest plugin: a running service with two published versions, and its page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.commands import alive, descendants, environment, wait_until

if TYPE_CHECKING:  # every run of tests loads this plugin
    from playwright.sync_api import Browser, Page

    from finsent.registry.registry import Registry

METRICS = {"rows": 1, "macro_f1": 1.0, "accuracy": 1.0, "ece": 0.1, "labels": {}}


@dataclass(frozen=True)
class Served:
    """A running service."""

    address: str
    grpc_address: str
    root: Path
    registry: Registry
    process: subprocess.Popen[bytes]

    def ask(self, text: str = "Profit rose.") -> dict[str, Any]:
        import httpx

        found: dict[str, Any] = httpx.post(
            f"{self.address}/predict", json={"text": text}, timeout=30
        ).raise_for_status().json()  # fmt: skip
        return found


def publish(tiny: Path, root: Path, seed: int) -> str:
    import pyarrow as pa

    from finsent.inference.config import EngineConfig, ExportConfig
    from finsent.inference.exporting import export
    from finsent.registry.registry import Registry
    from tests.unit.models import TEXTS, saved_model

    model = saved_model(tiny, root / f"model-{seed}", seed)
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    export(model, rows, ExportConfig(openvino=False), EngineConfig(threads=1), {})
    return Registry(root / "registry").publish(model, METRICS, {}).version


@pytest.fixture(scope="session")
def served_root(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions; the champion is the first."""
    from finsent.registry.registry import Registry

    root = tmp_path_factory.mktemp("artifacts")
    registry = Registry(root / "registry")
    registry.promote(publish(tiny, root, 3), "champion")
    registry.promote(publish(tiny, root, 4), "challenger")
    return root


@pytest.fixture(scope="module")
def served(served_root: Path) -> Iterator[Served]:
    """`ray_jobs.serve` with up to two replicas, of little patience with waiting work."""
    from finsent.registry.registry import Registry

    root = served_root
    log = root / "serve.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.serve", f"storage.root={root}", "port=0",
             "engine.precision=fp32", "engine.threads=1", "serve.watch_seconds=0.5",
             "serve.max_replicas=2", "serve.drain_seconds=0.02", "serve.upscale_seconds=0.5",
             "serve.downscale_seconds=2", "serve.limits.queue_seconds=90",
             "serve.limits.timeout_ms=60000", "serve.grpc_port=0",
             "serve.shadow=challenger", "serve.record=true", "serve.explainers=1"],
            env=environment(), stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    started = descendants(psutil.Process(process.pid))
    try:

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"at (http://\S+)/ after", log.read_text())
            return found and found[1]

        wait_until(lambda: address() is not None, 240, "the service to start")
        started |= descendants(psutil.Process(process.pid))
        grpc_address = re.search(r"gRPC: (\S+),", log.read_text())
        assert grpc_address
        yield Served(str(address()), grpc_address[1], root, Registry(root / "registry"), process)
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, log.read_text()
    assert json.loads(out.splitlines()[-1])["address"].startswith("http://127.0.0.1:")
    assert "Traceback" not in log.read_text()
    wait_until(lambda: not alive(started), 30, "its processes to end")


def gateways(served: Served) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(served.process.pid).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "ServeReplica" in name and "Gateway" in name:
            found.append(process)
    return found


def answering(served: Served) -> int:
    """Gateways that hold an HTTP connection of the load balancer."""
    found = 0
    for process in gateways(served):
        with suppress(psutil.NoSuchProcess):
            found += any(
                one.laddr.port in range(30_000, 31_000) and one.status == psutil.CONN_ESTABLISHED
                for one in process.net_connections("tcp")
            )
    return found


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real headless Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "the page's tests need Chromium: apt-get install chromium"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def home(browser: Browser, served: Served) -> Iterator[Page]:
    """The page, freshly opened; afterwards nothing is wrong on its console, and nobody else was
    asked for anything."""
    page = browser.new_page()
    page.set_default_timeout(90_000)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.address)
    yield page
    page.close()
    assert not wrong
    assert all(url.startswith((served.address, "data:", "blob:")) for url in asked), asked


def wait_until_done(page: Page) -> None:
    page.locator("#status", has_text=": done").wait_for()
