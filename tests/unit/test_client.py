"""The client against a real HTTP server that refuses, drops and answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from finsent.client import AsyncClient, Client, ServiceError

Script = Callable[[dict[str, Any]], tuple[int, dict[str, str], Any]]


def answer_body(text: str) -> dict[str, Any]:
    if text == "bad":
        return {"code": "invalid_text", "detail": "write something", "status": 422}
    return {
        "label": "neutral",
        "score": 0.5,
        "probabilities": {"neutral": 0.5},
        "request_id": "1",
        "model_version": "abc",
        "abstained": False,
        "truncated": len(text) > 20,
    }


def good(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    if "texts" in body:
        return 200, {}, {"predictions": [answer_body(text) for text in body["texts"]]}
    return (
        200,
        {},
        {
            **answer_body(body["text"]),
            "words": [{"text": "Up", "start": 0, "end": 2, "attribution": 0.3, "by_label": {}}],
        },
    )


def busy(_: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    problem = {"code": "overloaded", "detail": "try later", "status": 429}
    return 429, {"retry-after": "1"}, problem


class Server:
    """Answers by a script, one entry per request; the last entry repeats."""

    def __init__(self) -> None:
        self.script: list[Script] = [good]
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.deadline: str | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.deadline = self.headers.get("x-request-timeout-ms")
                server.requests.append((self.headers.get("authorization", ""), body))
                script = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                status, headers, content = script(body)
                if status == 0:  # drop the connection
                    self.close_connection = True
                    return
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, key="secret", retries=2) as client:
        yield client


def test_answers_are_typed_and_the_key_is_sent(server: Server, client: Client) -> None:
    answer = client.predict("Up", truncate="left")
    assert (answer.label, answer.score, answer.model_version) == ("neutral", 0.5, "abc")
    assert server.requests == [("Bearer secret", {"text": "Up", "truncate": "left"})]
    assert server.deadline is None
    explained, [word] = client.explain("Up")
    assert explained.label == "neutral"
    assert (word.text, word.attribution) == ("Up", 0.3)


def test_polarity_is_none_if_an_older_service_sends_none(server: Server, client: Client) -> None:
    assert client.predict("Up").polarity is None
    server.script = [lambda body: (200, {}, {**answer_body(body["text"]), "polarity": -0.25})]
    assert client.predict("Up").polarity == -0.25


def test_the_deadline_is_sent(server: Server) -> None:
    with Client(server.address, deadline=1.5) as client:
        client.predict("Up")
    assert server.deadline == "1500"


def test_a_text_that_is_refused_has_its_reason_in_its_place(client: Client) -> None:
    first, second, third = client.predict_all(["Up", "bad", "x" * 30])
    assert first.code is None
    assert (second.label, second.code, second.detail) == (None, "invalid_text", "write something")
    assert third.truncated


def test_refused_requests_are_retried_after_the_time_that_the_service_names(
    server: Server, client: Client
) -> None:
    server.script = [busy, good]
    started = time.monotonic()
    assert client.predict("Up").label == "neutral"
    assert time.monotonic() - started >= 1
    assert len(server.requests) == 2


def test_requests_on_dropped_connections_are_retried(server: Server, client: Client) -> None:
    server.script = [lambda _: (0, {}, None), good]
    assert client.predict("Up").label == "neutral"


def test_requests_that_are_not_valid_are_not_retried(server: Server, client: Client) -> None:
    server.script = [lambda _: (422, {}, {"code": "text_too_long", "detail": "shorten it"})]
    with pytest.raises(ServiceError, match="text_too_long: shorten it") as caught:
        client.predict("Up")
    assert caught.value.status == 422
    assert len(server.requests) == 1


def test_retries_are_limited(server: Server) -> None:
    server.script = [lambda _: (503, {}, "no JSON problem")]
    with Client(server.address, retries=2) as client, pytest.raises(ServiceError) as caught:
        client.predict("Up")
    assert caught.value.code == "http_503"
    assert len(server.requests) == 3
    with (
        Client("http://127.0.0.1:9", retries=0) as unreachable,
        pytest.raises(ServiceError, match="unreachable"),
    ):
        unreachable.predict("Up")


def test_streams_read_texts_as_answers_are_consumed(server: Server, client: Client) -> None:
    read = []

    def texts() -> Iterator[str]:
        for i in range(1000):
            read.append(i)
            yield f"text {i}"

    stream = client.stream(texts(), batch=100)
    next(stream)
    assert len(read) == 100
    assert sum(1 for _ in stream) == 999
    assert [len(body["texts"]) for _, body in server.requests] == [100] * 10


def test_requests_of_streams_stay_below_the_limit_of_bytes(server: Server, client: Client) -> None:
    texts = ["x" * 20_000] * 256 + ["y" * 2_000_000, "Up"]
    assert sum(1 for _ in client.stream(texts)) == len(texts)
    sizes = [sum(map(len, body["texts"])) for _, body in server.requests]
    assert sorted(sizes)[-2] <= 250_000
    assert [text for _, body in server.requests for text in body["texts"]] == texts


def test_async_client_answers_in_order_and_retries(server: Server) -> None:
    server.script = [busy, good]

    async def main() -> list[Any]:
        async with AsyncClient(server.address) as client:
            answer = await client.predict("Up")
            assert answer.label == "neutral"
            texts = ["bad" if i % 7 == 0 else f"text {i}" for i in range(500)]
            return [answer async for answer in client.stream(texts, batch=50)]

    answers = asyncio.run(main())
    assert [answer.code is not None for answer in answers] == [i % 7 == 0 for i in range(500)]
