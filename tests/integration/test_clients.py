"""Real clients of other servers ask the service: each call gives what its own server gives."""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.metrics_record import StoredMetrics
from finsent.registry.registry import Registry
from serve_app.auth import Keys
from serve_app.config import LimitsConfig, ServeConfig
from serve_app.http.app import build_app
from serve_app.openapi import describe
from serve_app.service.service import Service
from tests.commands import wait_until
from tests.integration.clients.cases import CASES, DOCS, TEXT, Case, World, with_table
from tests.unit.models import saved_model

OPENAPI = DOCS.parent / "openapi.json"
PACKAGE = "@huggingface/inference@4.13.30"
METRICS = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, ece=0.1, labels={})
ENGINE = EngineConfig(precision="fp32", threads=1)


@pytest.fixture(scope="package", autouse=True)
def local_ray() -> None:
    """No Ray for these tests alone: they ask a service without it."""


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client ask: it goes to this machine only."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


class Recorder:
    """An ASGI application that notes what it is asked for."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.asked.append(f"{scope['method']} {scope['path']}")
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("asked")
    registry = Registry(folder / "registry")
    model = saved_model(tiny, folder / "model")
    registry.promote(registry.publish(model, METRICS, {}).version, "champion")
    return registry


@pytest.fixture(scope="module")
def recorder(registry: Registry) -> Recorder:
    service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
    asyncio.run(service.models.follow())
    return Recorder(build_app(service, Keys(None)))


@pytest.fixture(scope="module")
def url(recorder: Recorder) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(recorder, "127.0.0.1", 0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 120, "the server to start")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Installs the JavaScript client with the first test that wants it."""

    @cache
    def installed() -> Path:
        if not shutil.which("node") or not shutil.which("npm"):
            pytest.skip("no node and npm here")
        folder = tmp_path_factory.mktemp("node")
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")
        return folder

    return installed


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    """Generates a client with the first test that wants it."""
    folder = tmp_path_factory.mktemp("generated")

    @cache
    def package() -> Any:
        config = folder / "config.yaml"
        config.write_text("post_hooks: []\npackage_name_override: finsent_generated\n")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "openapi_python_client",
                "generate",
                "--path",
                str(OPENAPI),
                "--output-path",
                str(folder / "out"),
                "--meta",
                "none",
                "--config",
                str(config),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "will not be generated" not in done.stdout, done.stdout
        (folder / "out").rename(folder / "finsent_generated")
        sys.path.insert(0, str(folder))
        module = importlib.import_module("finsent_generated")
        for name in ("models", "types"):
            importlib.import_module(f"finsent_generated.{name}")
        return module

    yield package
    if str(folder) in sys.path:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def world(
    url: str, registry: Registry, generated: Callable[[], Any], node: Callable[[], Path]
) -> World:
    version = registry.get("champion")
    return World(url, Engine(version.path, ENGINE), version.version, generated, node)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.run.__name__)
def test_the_call_returns_what_its_own_server_returns(
    case: Case, world: World, recorder: Recorder
) -> None:
    recorder.asked.clear()
    case.run(world)
    assert {*recorder.asked} == {*case.routes}


def test_generators_make_a_function_of_every_operation(generated: Callable[[], Any]) -> None:
    folder = Path(generated().__file__).parent / "api"
    made = {path.stem for path in folder.glob("*/*.py")} - {"__init__"}
    assert made == operations()


@pytest.mark.cost(8, "starts a Java process")
def test_openapi_generator_makes_a_function_of_every_operation(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = shutil.which("openapi-generator-cli") or shutil.which("openapi-generator")
    if command is None:
        pytest.skip("no openapi-generator here: pip install openapi-generator-cli, and Java")
    done = subprocess.run(
        [
            command,
            "generate",
            "-g",
            "python",
            "-i",
            str(OPENAPI),
            "-o",
            str(tmp_path),
            "--additional-properties=packageName=finsent_openapi",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = "".join(path.read_text() for path in tmp_path.glob("finsent_openapi/api/*.py"))
    assert {name for name in operations() if f"    def {name}(" in made} == operations()
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("finsent_openapi")
    client = package.ApiClient(package.Configuration(host=world.url))
    [prediction] = world.engine.classify([TEXT])
    answer = package.FinsentApi(client).predict(package.PredictRequest(text=TEXT))
    assert answer.actual_instance.label == prediction.label
    request = package.ClassifyRequest(input=package.ClassifyInput(TEXT))
    assert package.VllmApi(client).classify(request).data[0].label == prediction.label
    hub = package.TextEmbeddingsInferenceApi(client)
    [ranking] = hub.infer(package.TeiRequest(inputs=package.TeiInputs(TEXT)))
    assert ranking[0].label == prediction.label


def test_every_operation_is_asked_by_some_client() -> None:
    document: Any = describe(LimitsConfig())
    paths = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert {route for case in CASES for route in case.routes} == paths


def test_description_in_the_docs_is_that_of_the_service() -> None:
    stale = "docs/openapi.json differs from the service's description: run `make openapi`"
    assert json.loads(OPENAPI.read_text(encoding="utf-8")) == describe(LimitsConfig()), stale


def test_calls_in_the_docs_are_those_that_are_tested() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text == with_table(text), "docs/clients.md differs from the tests: run `make clients`"


def operations() -> set[str]:
    document: Any = describe(LimitsConfig())
    by_method = document["paths"].values()
    return {operation["operationId"] for methods in by_method for operation in methods.values()}
