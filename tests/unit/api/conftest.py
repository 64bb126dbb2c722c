"""A registry, its engine and clients of the service, for the tests of the API."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from tests.threads import compute_threads
from tests.unit.api.apps import ENGINE, make_app
from tests.unit.models import published


@pytest.fixture(scope="session")
@compute_threads()
def published_models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a registry with two exported versions. ONNX Runtime loads them fast."""
    folder = tmp_path_factory.mktemp("published")
    return published(tiny, folder, ENGINE, ("champion", "challenger")).root


@pytest.fixture(scope="module")
def registry(published_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry of the test file with the aliases `champion` and `challenger`."""
    root = tmp_path_factory.mktemp("served") / "registry"
    shutil.copytree(published_models, root)
    return Registry(root)


@pytest.fixture(scope="module")
def engine(registry: Registry) -> Engine:
    """Return an engine of the champion, with the settings of the service."""
    return Engine(registry.get("champion").path, ENGINE)


@pytest.fixture(scope="module")
def client(registry: Registry) -> Iterator[TestClient]:
    """Return a client of a service with the default settings."""
    with TestClient(make_app(registry)) as client:
        yield client


@pytest.fixture
def serving(registry: Registry) -> Iterator[Callable[..., TestClient]]:
    """Return clients of services with other settings."""
    opened = []

    def make(**config: Any) -> TestClient:
        client = TestClient(make_app(registry, **config))
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)
