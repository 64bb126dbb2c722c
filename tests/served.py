"""A pytest plugin: a running service with two published versions, and its page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from finsent.metrics_record import StoredMetrics
from tests.commands import alive, descendants, environment, wait_until

if TYPE_CHECKING:  # every run of tests loads this plugin
    from playwright.sync_api import Browser, Page

    from finsent.registry.registry import Registry
    from serve_app.service.service import Service

METRICS = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, ece=0.1, labels={})


@dataclass(frozen=True)
class Served:
    """A running service."""

    address: str
    grpc_address: str
    root: Path
    registry: Registry
    process: subprocess.Popen[bytes]
    ports: dict[str, str]  # of its helpers, as it prints them
    log: Path

    def ask(self, text: str = "Profit rose.") -> dict[str, Any]:
        import httpx

        prediction: dict[str, Any] = (
            httpx.post(f"{self.address}/predict", json={"text": text}, timeout=30)
            .raise_for_status()
            .json()
        )
        return prediction


@contextmanager
def serving_in_thread(service: Service) -> Iterator[str]:
    """Serve a service without Ray from a thread, and yield its address."""
    import asyncio
    import threading

    import uvicorn

    from serve_app.auth import Keys
    from serve_app.http.app import build_app

    app = build_app(service, Keys(service.config.keys_file))
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="warning"))

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


def publish(tiny: Path, root: Path, seed: int) -> str:
    import pyarrow as pa

    from finsent.export.config import ExportConfig
    from finsent.export.exporter import export_model
    from finsent.inference.config import EngineConfig
    from finsent.registry.registry import Registry
    from tests.unit.models import TEXTS, saved_model

    model = saved_model(tiny, root / f"model-{seed}", seed)
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    export_model(model, rows, ExportConfig(openvino=False), EngineConfig(threads=1), {})
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


@contextmanager
def serving(root: Path, *arguments: str, python: str = sys.executable) -> Iterator[Served]:
    """`ray_jobs.serve` until it has ended; SIGINT ends it where the test has not.

    Args:
        python: the interpreter of the service.
    """
    from finsent.registry.registry import Registry

    log = root / "serve.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                python,
                "-m",
                "ray_jobs.serve",
                f"storage.root={root}",
                "engine.precision=fp32",
                "engine.threads=1",
                *arguments,
            ],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    started = descendants(psutil.Process(process.pid))
    try:

        def is_started() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ctrl-C ends it" in log.read_text()

        wait_until(is_started, 240, "the service to start")
        started |= descendants(psutil.Process(process.pid))
        lines = log.read_text()
        address = re.search(r"at (http://\S+)/ after", lines)
        grpc_address = re.search(r"gRPC: (\S+),", lines)
        helpers = re.search(r"helpers, on 127.0.0.1 only: (.*)", lines)
        assert address
        assert grpc_address
        assert helpers
        ports = dict(helper.split() for helper in helpers[1].split(", "))
        yield Served(
            address[1], grpc_address[1], root, Registry(root / "registry"), process, ports, log
        )
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    # Agents of a Ray that was killed notice it after a minute or two.
    seconds = 30 if process.returncode == 0 else 180
    wait_until(lambda: not alive(started), seconds, "its processes to end")


@pytest.fixture(scope="module")
def served(served_root: Path) -> Iterator[Served]:
    """A service with up to two replicas, of little patience with waiting work."""
    with serving(
        served_root,
        "port=0",
        "serve.watch_seconds=0.5",
        "serve.max_replicas=2",
        "serve.drain_seconds=0.02",
        "serve.upscale_seconds=0.5",
        "serve.downscale_seconds=2",
        "serve.limits.queue_seconds=90",
        "serve.limits.timeout_ms=60000",
        "serve.grpc_port=0",
        "serve.shadow=challenger",
        "serve.record=true",
        "serve.record_seconds=0.5",
        "serve.explainers=1",
    ) as service:
        yield service
    assert service.process.stdout
    result = json.loads(service.process.stdout.read().splitlines()[-1])
    log = service.log.read_text()
    assert service.process.returncode == 0, log
    assert result["address"] == service.address
    assert result["grpc_address"] == service.grpc_address
    assert {name: str(port) for name, port in result["ports"].items()} == service.ports
    assert "Traceback" not in log
    assert "Warning" not in log


def gateways(served: Served) -> list[psutil.Process]:
    processes = []
    for process in psutil.Process(served.process.pid).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "ServeReplica" in name and "Gateway" in name:
            processes.append(process)
    return processes


def answering(served: Served) -> int:
    """Gateways that hold an HTTP connection of the load balancer."""
    connection_count = 0
    first, last = map(int, served.ports["replicas_http"].split("-"))
    for process in gateways(served):
        with suppress(psutil.NoSuchProcess):
            connection_count += any(
                first <= connection.laddr.port <= last
                and connection.status == psutil.CONN_ESTABLISHED
                for connection in process.net_connections("tcp")
            )
    return connection_count


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
    urls: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(served.address)
    yield page
    page.close()
    assert not wrong
    assert all(url.startswith((served.address, "data:", "blob:")) for url in urls), urls


def wait_until_done(page: Page) -> None:
    page.locator("#status", has_text=": done").wait_for()


def listeners(process: psutil.Process) -> set[tuple[str, int, str]]:
    """The addresses that a process and those below it listen on, with the process's title."""
    sockets = set()
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(member.cmdline()).strip()
            sockets |= {
                (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port, title)
                for connection in member.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    return sockets
