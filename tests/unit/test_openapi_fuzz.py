"""The service does what its description says, whatever is asked: schemathesis tries it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from finsent.registry.registry import Registry
from serve_app.auth import new_key
from serve_app.config import LimitsConfig
from serve_app.openapi import describe
from tests.properties import DEEP
from tests.unit.api.apps import make_app
from tests.unit.models import METRICS, saved_model

pytestmark = pytest.mark.cost(1.5, "sends many requests")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DEADLINE = "X-Request-Timeout-Ms"
DESCRIPTION: Any = describe(LimitsConfig())
schema = schemathesis.openapi.from_dict(DESCRIPTION, config=schemathesis.Config(seed=7))


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("fuzzed")
    registry = Registry(folder / "registry")
    version = registry.publish(saved_model(tiny, folder / "model"), METRICS, {}).version
    registry.promote(version, "champion")
    return registry


@pytest.fixture(scope="module")
def app(registry: Registry) -> Any:
    return make_app(registry)


@pytest.fixture(scope="module")
def locked(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that asks for a key, which nobody who guesses has."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    new_key(path, "desk", "predict")
    return make_app(registry, api_keys=str(path))


@pytest.fixture(scope="module")
def statuses() -> dict[str, set[int]]:
    """Statuses that were seen, by operation."""
    return defaultdict(set)


def test_what_is_tried_is_what_clients_are_shown(app: Any) -> None:
    with TestClient(app) as client:
        assert client.get("/openapi.json").json() == DESCRIPTION


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-encoding": "gzip"}, b"{}"),
        ({"content-type": "image/png"}, b"{}"),
        ({DEADLINE: "soon"}, b"{}"),
        ({}, b" " * (3 << 20)),
        ({}, b"\xff"),
    ],
)
def test_what_schemathesis_does_not_send_is_described_too(
    app: Any, headers: dict[str, str], body: bytes
) -> None:
    with TestClient(app) as client:
        for path, methods in DESCRIPTION["paths"].items():
            for method, operation in methods.items():
                response = client.request(method, path, content=body, headers=headers)
                described = operation["responses"][str(response.status_code)]
                kind = response.headers["content-type"].partition(";")[0]
                assert kind in described["content"], (path, response.text)
                assert {name.lower() for name in described["headers"]} <= response.headers.keys()


@schema.parametrize()
@settings(max_examples=60 * DEEP, deadline=None, derandomize=True, database=None)
def test_the_service_answers_as_it_is_described(
    case: schemathesis.Case[Any], app: Any, statuses: dict[str, set[int]]
) -> None:
    if case.headers.get(DEADLINE, "").isdecimal():
        case.headers[DEADLINE] = "10000"  # else it is up to the machine whether the answer is 504
    response = case.call_and_validate(checks=CHECKS, app=app)
    statuses[case.operation.label].add(response.status_code)


def test_both_good_and_bad_requests_were_tried(statuses: dict[str, set[int]]) -> None:
    if len(statuses) < len(DESCRIPTION["paths"]):
        pytest.skip("not all of this module's tests have run")
    for operation, seen in statuses.items():
        assert 200 in seen, operation
        refused = 400 if "classify" in operation else 422  # vLLM's
        assert operation.startswith("GET") or refused in seen, operation


@schema.parametrize()
@settings(max_examples=5 * DEEP, deadline=None, derandomize=True, database=None)
def test_keys_are_asked_for_as_it_is_described(case: schemathesis.Case[Any], locked: Any) -> None:
    response = case.call_and_validate(checks=CHECKS, app=locked)
    # Schemathesis also sends methods that are not described: GET / is the page.
    if response.status_code != 405 and case.method.lower() == case.operation.method.lower():
        is_open = case.operation.definition.raw.get("security") == []
        assert response.status_code == (200 if is_open else 401)
