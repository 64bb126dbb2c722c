"""Requests under load: deadlines, full queues, disconnected clients, the cache."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from finsent.errors import InputError
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.config import LimitsConfig, ServeConfig
from serve_app.service.service import Service
from tests.unit.api.apps import ENGINE, in_loop, make_app, post, problem
from tests.unit.models import (
    TEXTS,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_answers_do_not_depend_on_other_requests(registry: Registry, engine: Engine) -> None:
    draw = random.Random(1)
    texts = [f"{TEXTS[draw.randrange(7)]} {i}" for i in range(300)]
    alone = [engine.probabilities([text])[0] for text in texts]

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", json={"text": t}) for t in texts))

    responses = in_loop(make_app(registry), test)
    assert max(int(item.headers["x-batch-size"]) for item in responses) > 4
    for response, expected in zip(responses, alone, strict=True):
        body = [*response.json()["probabilities"].values()]
        assert np.array(body) == pytest.approx(expected, abs=1e-5)


def test_a_deadline_starts_when_the_proxy_accepts_the_request(client: TestClient) -> None:
    def asked(began: float | str) -> Any:
        message = began if isinstance(began, str) else f"t={began * 1000:.0f}"
        headers: Any = {"x-request-start": message.encode(), "x-request-timeout-ms": "10000"}
        return client.post("/predict", json={"text": "Up"}, headers=headers)

    late = asked(time.time() - 11)
    assert problem(late, "deadline_exceeded")["detail"].startswith("no answer")
    assert "connection" not in late.headers, "under overload a new connection is more work"
    assert asked(time.time() - 1).status_code == 200
    assert asked(time.time() + 100).status_code == 200  # another clock
    for odd in ("", "t=", "soon", "t=-5", "t=²", "t=" + "9" * 5000):
        assert asked(odd).status_code == 200


def test_a_deadline_ends_a_request(client: TestClient) -> None:
    body = {"texts": ["order " * 60] * 1000}
    late = post(client, body, x_request_timeout_ms="1")
    assert "1 ms" in problem(late, "deadline_exceeded")["detail"]
    assert "connection" not in late.headers
    assert post(client, {"text": "Up"}).status_code == 200  # nothing is left behind
    assert client.get("/health").json()["queue_tokens"] < 10_000
    for odd in ("0", "-1", "soon", "1e3", "²"):
        headers: Any = {"x-request-timeout-ms": odd.encode()}
        response = client.post("/predict", json={"text": "Up"}, headers=headers)
        problem(response, "invalid_request")
    assert post(client, {"text": "Up"}, x_request_timeout_ms="999999999999").status_code == 200


def sends(
    app: Any, *events: dict[str, Any], timeout_ms: int = 10_000, path: str = "/predict"
) -> int:
    """Return the status for a client that sends a part of its request, and then nothing."""
    given, status = iter(events), []

    async def receive() -> Any:
        event = next(given, None)
        return event if event else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "headers": [(b"x-request-timeout-ms", str(timeout_ms).encode())],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return int(status[0])


def test_an_incomplete_body_ends_at_the_deadline(registry: Registry) -> None:
    message_part = {"type": "http.request", "body": b'{"text"', "more_body": True}
    app = make_app(registry, limits=LimitsConfig(files=1))
    assert sends(app, message_part, timeout_ms=50) == 504
    for _ in range(2):  # the first one is not counted for ever
        assert sends(app, message_part, timeout_ms=50, path="/predict/file") == 504


def test_a_client_that_leaves_within_its_body_is_not_logged_as_an_error(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    message_part = {"type": "http.request", "body": b'{"text"', "more_body": True}
    assert sends(make_app(registry), message_part, {"type": "http.disconnect"}) == 499
    assert "Traceback" not in caplog.text
    assert not [item for item in caplog.records if item.levelno >= logging.ERROR]


def test_more_than_can_wait_is_refused_as_a_whole(registry: Registry) -> None:
    app = make_app(registry, limits=LimitsConfig(queue_seconds=0.05))

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        await client.post("/predict", json={"texts": TEXTS})  # a rate is measured
        bulk = {"texts": ["order " * 60] * 500}
        return await asyncio.gather(*(client.post("/predict", json=bulk) for _ in range(40)))

    result = in_loop(app, test)
    refused = [item for item in result if item.status_code == 429]
    assert refused
    assert len(refused) < 40
    for item in refused:
        detail = problem(item, "overloaded")["detail"]
        drain = float(re.search(r"([\d.]+) s of work", detail)[1])  # type: ignore[index]
        assert 1 <= int(item.headers["retry-after"]) <= drain + 1.1  # rounded up
    for item in result:
        if item.status_code == 200:
            assert all("label" in answer for answer in item.json()["predictions"])


def test_others_are_served_while_a_long_list_is_encoded(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        texts = [f"{i} " + "profit rose " * 700 for i in range(200)]
        encoded = asyncio.create_task(service.encode(service.model, texts, "right"))
        turns = 0
        while not encoded.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20
        rows = [item.ids for item in await encoded if not isinstance(item, InputError)]
        assert rows == [item.ids for item in service.model.engine.encode(texts)]

    asyncio.run(main())


def test_too_many_requests_at_a_time_are_refused(registry: Registry) -> None:
    app = make_app(registry, limits=LimitsConfig(requests=5))

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        requests = (client.post("/predict", json={"text": f"order {i}"}) for i in range(30))
        return await asyncio.gather(*requests)

    codes = [item.status_code for item in in_loop(app, test)]
    assert set(codes) == {200, 429}


def test_cache_answers_the_same_text_once(serving: Callable[..., TestClient]) -> None:
    client = serving(cache_entries=2)
    first_response = post(client, {"text": "Profit rose."})
    again = post(client, {"text": "Profit rose."})
    assert first_response.json()["probabilities"] == again.json()["probabilities"]
    assert (first_response.headers["x-batch-size"], again.headers["x-batch-size"]) == ("1", "0")
    for text in ("a", "b"):
        post(client, {"text": text})
    assert post(client, {"text": "Profit rose."}).headers["x-batch-size"] == "1"  # pushed out
    assert "finsent_cache_hits_total 1.0" in client.get("/metrics").text
