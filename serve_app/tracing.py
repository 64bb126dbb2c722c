"""OpenTelemetry traces of requests: where their time went. They never contain texts.

Spans are made after the answer, from times that are measured anyway. A service without
`serve.otlp_endpoint` pays nothing, and does not need the packages.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from finsent.errors import ConfigError
from finsent.extras import require
from serve_app.request_log import Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_PATH = "/v1/traces"
_EXPORT_SECONDS = 5  # for a batch of spans: less than a replica has for its shutdown
_PARENT_HEADERS = ("traceparent", "tracestate")
_NANO = 1_000_000_000


def check(endpoint: str) -> None:
    """Check the endpoint and the packages.

    Raises:
        ConfigError: the endpoint is not an address.
        InputError: the packages are not installed.
    """
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 # raises ValueError if it is not a number
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(
            f"serve.otlp_endpoint={endpoint!r}: not an HTTP address. Write http://HOST:4318."
        )
    for package in _PACKAGES:
        require(package, f"serve.otlp_endpoint={endpoint!r}", "set it to null")


class Tracer:
    """Makes spans and sends them from its own thread; spans that cannot be sent are dropped."""

    def __init__(self, endpoint: str) -> None:
        """Connect with the first spans.

        Args:
            endpoint: of OTLP/HTTP, with or without /v1/traces. Credentials come from the
                environment: OTEL_EXPORTER_OTLP_HEADERS.

        Raises:
            ConfigError: the endpoint is not an address.
            InputError: the packages are not installed.
        """
        check(endpoint)
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        url = endpoint.rstrip("/")
        url = url if url.endswith(_PATH) else url + _PATH
        # Not the provider of the process: Ray may have one for its own spans.
        self._provider = TracerProvider(resource=Resource.create({"service.name": "finsent"}))
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(url, timeout=_EXPORT_SECONDS))
        )
        self._tracer = self._provider.get_tracer("finsent.serve")
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def answered(self, request: Request, response: Response, outcome: Outcome) -> None:
        """Make the spans of a request: one of the server, with children `queue` and `inference`.

        The span of a stream ends with the stream.
        """
        started = time.time_ns() - int(outcome.seconds * _NANO)

        def make() -> None:
            self._make(request, started, outcome)

        if isinstance(response, StreamingResponse):
            response.body_iterator = _before_end(response.body_iterator, make)
        else:
            make()

    def close(self) -> None:
        """Send the remaining spans and end the thread; takes seconds at most."""
        self._provider.shutdown()

    def _make(self, request: Request, started: int, outcome: Outcome) -> None:
        ended, status, code = time.time_ns(), outcome.status, outcome.code
        model_version, timing = outcome.model_version, outcome.timing
        scope = request.scope
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "http.route": path,  # no route has parameters
            "http.response.status_code": status,
            "url.path": scope["path"],  # without the query, which may contain texts
            "url.scheme": scope["scheme"],
            "finsent.request_id": outcome.sender.request_id,
        }
        if outcome.sender.key is not None:
            attributes["finsent.key"] = outcome.sender.key
        if model_version is not None:
            attributes["finsent.model_version"] = model_version
        if timing is not None and timing.rows:
            attributes["finsent.batch_rows"] = timing.rows
        if code is not None:
            attributes["finsent.code"] = code
        if status >= 500:  # other statuses are errors of the client
            attributes["error.type"] = code or str(status)
        span = self._tracer.start_span(
            f"{request.method} {path}",
            self._parent(request),
            self._trace.SpanKind.SERVER,
            attributes,
            start_time=started,
        )
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        if timing is not None and timing.rows:
            inside = self._trace.set_span_in_context(span)
            edges = [
                min(max(int(seconds * _NANO), started), ended)
                for seconds in (
                    timing.arrived,
                    timing.arrived + timing.queued,
                    timing.arrived + timing.queued + timing.computed,
                )
            ]
            for name, begin, end in zip(("queue", "inference"), edges[:-1], edges[1:], strict=True):
                self._tracer.start_span(name, inside, start_time=begin).end(end)
        span.end(ended)

    def _parent(self, request: Request) -> Context:
        headers = request.headers
        carrier = {name: headers[name] for name in _PARENT_HEADERS if name in headers}
        return self._propagator.extract(carrier)


async def _before_end(stream: Any, at_end: Callable[[], None]) -> AsyncIterator[Any]:
    """Yield a stream, and call `at_end` when it is complete or its client has left."""
    try:
        async for piece in stream:
            yield piece
    finally:
        at_end()
