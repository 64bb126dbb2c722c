"""What HTTP and gRPC share: keys, limits, logs, metrics, and the pace of bodies."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
from starlette.testclient import TestClient

from finsent.inference.config import EngineConfig
from finsent.registry.registry import Registry
from serve_app.auth import Keys, new_key
from serve_app.config import LimitsConfig, ServeConfig
from serve_app.grpc_server import SIZE_VARIABLE, add_to_server, size_limit
from serve_app.grpc_server.rpc import Rpc
from serve_app.http.app import build_app
from serve_app.metrics import Metrics
from serve_app.problems import Problem
from serve_app.proto import sentiment_pb2 as pb
from serve_app.proto.sentiment_pb2_grpc import SentimentStub
from serve_app.service.explain import explain
from serve_app.service.service import Service
from tests.unit.models import published
from tests.unit.test_rpc import Context

pytestmark = pytest.mark.usefixtures("keep_threads")

ENGINE = EngineConfig(precision="fp32", threads=1)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return published(tiny, tmp_path_factory.mktemp("requests"), ENGINE)


def make_service(registry: Registry, **config: Any) -> Service:
    service = Service(registry.root, ServeConfig(watch_seconds=0, **config), ENGINE)
    asyncio.run(service.models.follow())
    return service


# --- gRPC: what is read before it is refused ------------------------------------------------------


class Servicer:
    """Passes calls to an `Rpc`, as the gateway does."""

    def __init__(self, rpc: Rpc) -> None:
        for method in pb.DESCRIPTOR.services_by_name["Sentiment"].methods:
            name = re.sub("(?<!^)([A-Z])", r"_\1", method.name).lower()
            setattr(self, method.name, partial(self._call, getattr(rpc, name)))

    async def _call(self, method: Any, message: bytes, context: Any) -> Any:
        with suppress(Problem):
            return await method(message, context)
        return pb.HealthResponse()  # the status was set; gRPC wants a message


async def asking(service: Service, test: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
    """Run a test against a gRPC server as Serve starts one."""
    rpc = Rpc(service, Keys(service.config.keys_file), Metrics(service), partial(explain, service))
    limit = int(size_limit(service.config.limits)[SIZE_VARIABLE])
    sizes = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
    server = grpc.aio.server(options=[(name, limit) for name in sizes])
    add_to_server(Servicer(rpc), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return await test(channel)
        finally:
            await server.stop(0)


def status(registry: Registry, message: bytes, key: str | None = None, **config: Any) -> str:
    """Return the status of a `PredictList` of these bytes."""

    async def test(channel: grpc.aio.Channel) -> str:
        call = channel.unary_unary("/finsent.v1.Sentiment/PredictList")
        try:
            await call(message, metadata=() if key is None else (("x-api-key", key),))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        return "OK"

    async def main() -> Any:
        service = Service(registry.root, ServeConfig(watch_seconds=0, **config), ENGINE)
        await service.models.follow()
        return await asking(service, test)

    return str(asyncio.run(main()))


GARBAGE = b"\xff" * 100


def test_a_message_is_parsed_after_its_key_is_checked(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = new_key(path, "desk", "predict")
    result = status(registry, GARBAGE, api_keys=str(path))
    assert result.startswith("UNAUTHENTICATED unauthorized: ")
    assert status(registry, GARBAGE, key, api_keys=str(path)) == (
        "INVALID_ARGUMENT invalid_request: the message is not a finsent.v1.PredictListRequest."
    )
    good = pb.PredictListRequest(texts=["Up"]).SerializeToString()
    assert status(registry, good, key, api_keys=str(path)) == "OK"


def test_messages_have_the_limit_of_bodies(registry: Registry, tmp_path: Path) -> None:
    limits = LimitsConfig(body_bytes=2048)
    message = pb.PredictListRequest(texts=["a" * 1000] * 3).SerializeToString()
    assert status(registry, message, limits=limits) == (
        "RESOURCE_EXHAUSTED body_too_large: the message has more than 2048 bytes "
        "(serve.limits.body_bytes). Send fewer texts at a time."
    )
    path = tmp_path / "keys.json"
    new_key(path, "desk", "predict")
    result = status(registry, message, limits=limits, api_keys=str(path))
    assert result.startswith("UNAUTHENTICATED")  # as over HTTP, the key comes first
    huge = pb.PredictListRequest(texts=["a" * 5_000_000]).SerializeToString()
    result = status(registry, huge)
    assert result.startswith("RESOURCE_EXHAUSTED")
    assert "larger than max (5000005 vs. 2097152)" in result


def test_the_largest_answers_fit_into_the_limit(registry: Registry) -> None:
    limits = LimitsConfig(body_bytes=1024, texts=300, characters=700)

    async def test(channel: grpc.aio.Channel) -> tuple[pb.PredictListResponse, pb.ExplainResponse]:
        stub = SentimentStub(channel)
        texts = pb.PredictListRequest(texts=["u"] * 300, raw_scores=True)
        words = pb.ExplainRequest(text=" ".join("é" * 300))
        return await stub.PredictList(texts), await stub.Explain(words)

    async def main() -> Any:
        config = ServeConfig(watch_seconds=0, limits=limits)
        service = Service(registry.root, config, ENGINE)
        await service.models.follow()
        return await asking(service, test)

    listed, explained = asyncio.run(main())
    assert len(listed.items) == 300
    assert listed.ByteSize() > limits.body_bytes
    assert len(explained.words) > 50
    assert explained.ByteSize() > limits.body_bytes


def test_info_is_equal_over_http_and_grpc(registry: Registry) -> None:
    service = make_service(registry, shadow="challenger")

    async def shadow() -> Any:
        return {"model": "challenger", "pairs": []}

    keys, metrics = Keys(None), Metrics(service)
    rpc = Rpc(service, keys, metrics, partial(explain, service), shadow)
    with TestClient(build_app(service, keys, metrics, None, shadow)) as client:
        body = client.get("/info").json()
    info = asyncio.run(rpc.info(b"", Context()))
    assert json.loads(info.json) == body
    assert body["shadow"] == {"model": "challenger", "pairs": []}


# --- whose key it was -----------------------------------------------------------------------------


async def predict_list(rpc: Rpc, key: str) -> None:
    """Send a list over gRPC. A request with an unknown key is refused."""
    context = Context(x_api_key=key, x_request_id="rpc")
    try:
        await rpc.predict_list(pb.PredictListRequest(texts=["Up", "Down"]), context)
    except Problem as problem:
        assert problem.code == "unauthorized"


def check_lines(records: list[logging.LogRecord], version: str) -> None:
    """Check that the log lines of requests name the keys `desk` and `root`."""
    lines = [json.loads(item.message) for item in records if item.name == "finsent.requests"]
    text_lines = [line for line in lines if "texts" in line]
    assert [line["key"] for line in text_lines] == ["desk", "root", "desk"]
    request_lines = [line for line in lines if line not in text_lines]
    assert [(line["operation"], line["key"], line["code"]) for line in request_lines] == [
        ("predict", "desk", None),
        ("predict", "root", None),
        ("predict", "unknown", "unauthorized"),
        ("predict", "unknown", "unauthorized"),
        ("metrics", "desk", "forbidden"),
        ("livez", None, None),
        ("grpc_predict_list", "desk", None),
        ("grpc_predict_list", "unknown", "unauthorized"),
        ("metrics", "root", None),
    ]
    [rpc_line] = [line for line in lines if line.get("operation") == "grpc_predict_list"][:1]
    assert rpc_line["model_version"] == version
    assert rpc_line["batch_rows"] == 2


def test_logs_and_metrics_name_the_key_of_each_request(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    desk, root = new_key(path, "desk", "predict"), new_key(path, "root", "admin")
    service = make_service(registry, api_keys=str(path), log_requests=True, log_texts=True)
    keys, metrics = Keys(path), Metrics(service)
    rpc = Rpc(service, keys, metrics, partial(explain, service))

    async def predict_lists() -> None:
        for key in (desk, "guess"):
            await predict_list(rpc, key)

    with (
        caplog.at_level(logging.INFO, "finsent.requests"),
        TestClient(build_app(service, keys, metrics)) as client,
    ):
        for key, path_, status in (
            (desk, "/predict", 200),
            (root, "/predict", 200),
            ("guess", "/predict", 401),
            ("another guess", "/predict", 401),
            (desk, "/metrics", 403),
        ):
            method = "GET" if path_ == "/metrics" else "POST"
            answer = client.request(method, path_, json={"text": "Up"}, headers={"x-api-key": key})
            assert answer.status_code == status
        assert client.get("/livez", headers={"x-api-key": desk}).status_code == 200
        asyncio.run(predict_lists())
        text = client.get("/metrics", headers={"x-api-key": root}).text
    check_lines(caplog.records, registry.aliases()["champion"])
    for series in (
        'requests_total{key="desk",operation="predict",status="200"} 1.0',
        'requests_total{key="unknown",operation="predict",status="401"} 2.0',
        'requests_total{key="desk",operation="metrics",status="403"} 1.0',
        'requests_total{key="desk",operation="grpc_predict_list",status="200"} 1.0',
        'requests_total{key="unknown",operation="grpc_predict_list",status="401"} 1.0',
        'texts_total{key="desk"} 3.0',
        'texts_total{key="root"} 1.0',
    ):
        assert f"finsent_key_{series}" in text
    assert desk not in caplog.text + text
    assert "guess" not in caplog.text + text


def test_without_keys_no_key_is_logged_or_counted(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(make_service(registry, log_requests=True), Keys(None))
    with caplog.at_level(logging.INFO, "finsent.requests"), TestClient(app) as client:
        assert client.post("/predict", json={"text": "Up"}).status_code == 200
        assert "finsent_key_requests_total{" not in client.get("/metrics").text
    [line, _] = [json.loads(item.message) for item in caplog.records if "operation" in item.message]
    assert line["key"] is None


# --- the pace of files ----------------------------------------------------------------------------

ROWS = b"text\n" + b"Profit rose.\n" * 600
SLOT = LimitsConfig(files=1, timeout_ms=100)
FAST = SLOT.replaced(file_bytes_per_second=1_000_000)


async def trickle(piece: bytes, seconds: float) -> AsyncIterator[dict[str, Any]]:
    """Yield pieces of a body without an end."""
    while True:
        yield {"type": "http.request", "body": piece, "more_body": True}
        await asyncio.sleep(seconds)  # the slow client itself


async def whole(body: bytes) -> AsyncIterator[dict[str, Any]]:
    """Yield a complete body, then wait: the client stays."""
    yield {"type": "http.request", "body": body, "more_body": False}
    await asyncio.Event().wait()


async def send_file(
    app: Any, body: AsyncIterator[dict[str, Any]], reads: int = 1_000_000
) -> tuple[int, bytes]:
    """Return status and answer for a client that reads a number of messages and then stops."""
    status, answer = 0, b""

    async def send(message: Any) -> None:
        nonlocal status, answer, reads
        reads -= 1
        if reads < 0:
            await asyncio.Event().wait()
        status = message.get("status", status)
        answer += message.get("body", b"")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict/file",
        "query_string": b"",
        "raw_path": b"/predict/file",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "headers": [],
    }
    await asyncio.wait_for(app(scope, body.__anext__, send), 20)
    return status, answer


@pytest.mark.parametrize(
    ("limits", "piece", "named"),
    [
        ({"file_bytes_per_second": 10_000}, b"a", "serve.limits.file_bytes_per_second"),
        ({"file_seconds": 0.2}, b"a" * 1000, "serve.limits.file_seconds"),
    ],
)
def test_a_slow_upload_ends(
    registry: Registry, limits: dict[str, Any], piece: bytes, named: str
) -> None:
    app = build_app(make_service(registry, limits=SLOT.replaced(**limits)), Keys(None))

    async def main() -> None:
        for _ in range(2):  # the first one does not hold its place
            status, answer = await send_file(app, trickle(piece, 0.002))
            assert (status, json.loads(answer)["code"]) == (504, "deadline_exceeded")
            assert named in json.loads(answer)["detail"]

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/predict", "/predict/file"])
def test_a_connection_with_a_slow_body_is_closed(registry: Registry, path: str) -> None:
    limits = SLOT.replaced(file_seconds=0.1)
    app = build_app(make_service(registry, limits=limits), Keys(None))

    async def main() -> None:
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            [port] = {
                item.getsockname()[1]
                for server_part in server.servers
                for item in server_part.sockets
            }
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"
            writer.write(head.encode() + b"t")
            answer = await asyncio.wait_for(reader.read(), 20)  # until the server closes
            writer.close()
        finally:
            await server.shutdown()
        head, _, body = answer.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 504")
        assert "connection: close" in head.lower()
        assert json.loads(body)["code"] == "deadline_exceeded"

    asyncio.run(main())


def test_rows_after_the_deadline_report_it(registry: Registry) -> None:
    limits = SLOT.replaced(file_seconds=1e-6)
    app = build_app(make_service(registry, limits=limits), Keys(None))
    status, answer = asyncio.run(send_file(app, whole(ROWS)))
    rows = list(csv.DictReader(io.StringIO(answer.decode())))
    assert (status, len(rows)) == (200, 600)
    assert {row["label"] for row in rows} == {""}
    for row in rows:
        assert row["error"].startswith("deadline_exceeded: no answer within 1e-06 s")


def test_a_client_that_reads_too_slowly_frees_its_slot(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(make_service(registry, limits=FAST), Keys(None))

    async def main() -> None:
        for reads in (0, 2):
            status, answer = await send_file(app, whole(ROWS), reads)
            assert (status, bool(answer)) == ((200, True) if reads else (0, False))
        assert caplog.text.count("the client reads too slowly") == 2
        status, answer = await send_file(app, whole(ROWS))
        assert (status, len(answer.splitlines())) == (200, 601)

    asyncio.run(main())
