"""Traces: the spans that a collector receives, which contain no texts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.testclient import TestClient

from finsent.errors import ConfigError, InputError
from finsent.registry.registry import Registry
from ray_jobs._settings import JobSettings
from serve_app import tracing
from serve_app.launch.checks import check_service
from tests.unit.api.apps import make_app
from tests.unit.models import METRICS, saved_model

pytestmark = pytest.mark.cost(1, "starts a process")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "Zebrafish margins doubled"


class Collector:
    """A collector of OTLP/HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.paths.add(self.path)
                received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Span]:
        result = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                assert attributes(resource.resource)["service.name"] == "finsent"
                result += [span for scope in resource.scope_spans for span in scope.spans]
        return result


def attributes(owner: Any) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in owner.attributes
    }


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("traced")
    registry = Registry(folder / "registry")
    version = registry.publish(saved_model(tiny, folder / "model"), METRICS, {}).version
    registry.promote(version, "champion")
    return registry


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced(registry: Registry, collector: Collector) -> Callable[..., Any]:
    """Yield a client; all spans of its service have arrived when the context ends."""

    @contextmanager
    def make(**config: Any) -> Iterator[TestClient]:
        with TestClient(make_app(registry, otlp_endpoint=collector.endpoint, **config)) as client:
            yield client

    return make


def test_a_request_continues_the_trace_of_its_client(
    traced: Callable[..., Any], collector: Collector, registry: Registry
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "desk-7"}
    before = time.time_ns()
    with traced() as client:
        response = client.post("/predict?q=Zebrafish", json={"text": SECRET}, headers=headers)
    assert response.status_code == 200
    assert collector.paths == {"/v1/traces"}
    spans = {span.name: span for span in collector.spans()}
    assert spans.keys() == {"POST /predict", "queue", "inference"}
    server = spans["POST /predict"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "finsent.request_id": "desk-7",
        "finsent.model_version": registry.aliases()["champion"],
        "finsent.batch_rows": 1,
    }
    queue, inference = spans["queue"], spans["inference"]
    assert {queue.parent_span_id, inference.parent_span_id} == {server.span_id}
    edges = [
        before,
        server.start_time_unix_nano,
        queue.start_time_unix_nano,
        queue.end_time_unix_nano,
        inference.end_time_unix_nano,
        server.end_time_unix_nano,
        time.time_ns(),
    ]
    assert edges == sorted(edges)
    assert inference.start_time_unix_nano == queue.end_time_unix_nano
    took = (inference.end_time_unix_nano - inference.start_time_unix_nano) / 1e6
    measured = float(response.headers["x-inference-time"])
    # The system may set its clock back in between: then the span is cut at its server's end.
    is_cut = inference.end_time_unix_nano == server.end_time_unix_nano
    assert took == pytest.approx(measured, abs=0.1) or (is_cut and took < measured)


def test_all_operations_have_spans_without_texts(
    traced: Callable[..., Any], collector: Collector
) -> None:
    with traced() as client:
        client.post("/predict", json={"texts": [SECRET, ""]})
        client.post("/predict", json={"inputs": [SECRET]})
        client.post("/explain", json={"text": SECRET})
        table = f"text\n{SECRET}\n".encode()
        assert SECRET in client.post("/predict/file?column=text", content=table).text
        client.post("/predict", content=f'{{"text": "{SECRET}", "{SECRET}": 1}}')
        for path in ("/info", "/health", "/readyz", "/livez", "/metrics"):
            assert client.get(path).status_code == 200
    spans = collector.spans()
    names = sorted(span.name for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    assert names == [
        "GET /health",
        "GET /info",
        "GET /livez",
        "GET /metrics",
        "GET /readyz",
        "POST /explain",
        *["POST /predict"] * 3,
        "POST /predict/file",
    ]
    assert [span.name for span in spans].count("inference") == 3
    roots = [span for span in spans if not span.parent_span_id]
    assert len({span.trace_id for span in roots}) == len(roots) == len(names)
    for word in SECRET.split():
        assert not any(word.encode() in body for body in collector.bodies)


def test_errors_are_marked(
    traced: Callable[..., Any], collector: Collector, tmp_path: Path
) -> None:
    from serve_app.auth import new_key

    path = tmp_path / "keys.json"
    key = {"x-api-key": new_key(path, "desk", "predict")}
    with traced(api_keys=str(path)) as client:
        client.post("/predict", json={"text": ""}, headers=key)
        client.post("/predict", json={"text": "Up"})
        slow = {"texts": ["order " * 60] * 1000}
        client.post("/predict", json=slow, headers={**key, "x-request-timeout-ms": "1"})
    result = {}
    for span in collector.spans():
        if span.kind == Span.SPAN_KIND_SERVER:
            seen = attributes(span)
            result[seen["http.response.status_code"]] = (
                seen["finsent.code"],
                seen.get("error.type"),
                span.status.code,
            )
    # What is the client's fault is no error of the server's span, by OpenTelemetry's conventions.
    assert result == {
        422: ("invalid_text", None, Status.STATUS_CODE_UNSET),
        401: ("unauthorized", None, Status.STATUS_CODE_UNSET),
        504: ("deadline_exceeded", "deadline_exceeded", Status.STATUS_CODE_ERROR),
    }


def test_a_trace_that_the_client_does_not_sample_is_not_sent(
    traced: Callable[..., Any], collector: Collector
) -> None:
    with traced() as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        client.post("/predict", json={"text": "Up"}, headers=headers)
        odd = {"traceparent": "00-nonsense"}  # begins a trace of its own
        assert client.get("/livez", headers=odd).status_code == 200
    assert [span.name for span in collector.spans()] == ["GET /livez"]


def test_an_unreachable_endpoint_fails_no_request(registry: Registry) -> None:
    with TestClient(make_app(registry, otlp_endpoint="http://127.0.0.1:9")) as client:
        assert client.post("/predict", json={"text": "Up"}).status_code == 200


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://a", "http://", "http://a:b", ""])
def test_an_endpoint_that_is_not_an_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.otlp_endpoint='.*Write http://HOST:4318"):
        tracing.Tracer(endpoint)


def test_missing_packages_are_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name.startswith("opentelemetry.exporter") else find(name),
    )
    message = (
        r"serve\.otlp_endpoint='http://a:4318': needs the package opentelemetry\.exporter.*"
        r"pip install 'finsent\[otel\]'"
    )
    with pytest.raises(InputError, match=message):
        make_app(registry, otlp_endpoint="http://a:4318")
    values = {"registry": {"root": str(registry.root)}, "serve": {"otlp_endpoint": "http://a:4318"}}
    with pytest.raises(InputError, match=message):  # before Ray starts
        check_service(JobSettings.model_validate(values).serve, registry)


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = "import sys, serve_app.http.app; sys.exit('opentelemetry.sdk' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
