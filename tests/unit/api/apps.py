"""ASGI applications of the service, and checks of their responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.testclient import TestClient

from finsent.inference.config import EngineConfig
from finsent.registry.registry import Registry
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.problems import CODES
from serve_app.service.service import Service

ENGINE = EngineConfig(precision="fp32", threads=2)


def make_app(registry: Registry, **config: Any) -> Any:
    """Return the application of a service that has loaded the champion."""
    config = {"watch_seconds": 0, **config}
    service = Service(registry.root, ServeConfig(**config), ENGINE)
    asyncio.run(service.models.follow())
    return build_app(service, Keys(service.config.keys_file))


def problem(response: Any, code: str) -> dict[str, Any]:
    """Check that a response is a problem with this code, and return the problem."""
    assert response.status_code == CODES[code][0], response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code, body
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


def post(client: TestClient, body: Any, path: str = "/predict", **headers: str) -> Any:
    """Send a body as JSON. Underscores in names of headers become hyphens."""
    return client.post(
        path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def in_loop(app: Any, test: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run a test with an asynchronous client of an application, for at most 60 s."""

    async def main() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.wait_for(test(client), 60)

    return asyncio.run(main())
