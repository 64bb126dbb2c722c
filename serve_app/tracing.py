"""Traces of requests by OpenTelemetry: where their time went. Texts are never a part of them.

Spans are made when a request has been answered, from the times that were taken anyway. So a service
without `serve.otlp_endpoint` pays nothing, and does not need the packages.
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
from serve_app.logs import Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_PATH = "/v1/traces"
_SECONDS = 5  # for a batch of spans to reach the endpoint: less than a replica has for its end
_PARENT = ("traceparent", "tracestate")
_NANO = 1_000_000_000


def check(endpoint: str) -> None:
    """Fail early, and say what to change.

    Raises:
        ConfigError: it is no address.
        InputError: the packages are not installed.
    """
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 # raises where it is no number
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            f"serve.otlp_endpoint={endpoint!r}: not an address of HTTP; write http://HOST:4318"
        )
    for package in _PACKAGES:
        require(package, f"serve.otlp_endpoint={endpoint!r}", "set it to null")


class Tracer:
    """Makes spans and sends them from a thread of its own; what can't be sent is dropped."""

    def __init__(self, endpoint: str) -> None:
        """Make one.

        Args:
            endpoint: of OTLP/HTTP, with or without /v1/traces. Credentials come from the
                environment: OTEL_EXPORTER_OTLP_HEADERS.

        Raises:
            ConfigError: it is no address.
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
        # Ours alone, not the process's: Ray may have one for its own spans.
        self._provider = TracerProvider(resource=Resource.create({"service.name": "finsent"}))
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(url, timeout=_SECONDS))
        )
        self._tracer = self._provider.get_tracer("finsent.serve")
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def answered(self, request: Request, response: Response, outcome: Outcome) -> None:
        """Make a request's spans: one of the server, and of it `queue` and `inference`.

        A stream's span ends with the stream.
        """
        started = time.time_ns() - int(outcome.seconds * _NANO)

        def make() -> None:
            self._make(request, started, outcome)

        if isinstance(response, StreamingResponse):
            response.body_iterator = _before_end(response.body_iterator, make)
        else:
            make()

    def close(self) -> None:
        """Send what has not been sent, and end the thread; may take seconds."""
        self._provider.shutdown()

    def _make(self, request: Request, started: int, outcome: Outcome) -> None:
        ended, status, code = time.time_ns(), outcome.status, outcome.code
        model_version, timing = outcome.version, outcome.timing
        scope = request.scope
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "http.route": path,  # no route has parameters
            "http.response.status_code": status,
            "url.path": scope["path"],  # without the query, where a client may have put anything
            "url.scheme": scope["scheme"],
            "finsent.request_id": outcome.asker.request_id,
        }
        if outcome.asker.key is not None:
            attributes["finsent.key"] = outcome.asker.key
        if model_version is not None:
            attributes["finsent.model_version"] = model_version
        if timing is not None and timing.rows:
            attributes["finsent.batch_rows"] = timing.rows
        if code is not None:
            attributes["finsent.code"] = code
        if status >= 500:  # others are the client's errors, not this server's
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
        carrier = {name: headers[name] for name in _PARENT if name in headers}
        return self._propagator.extract(carrier)


async def _before_end(stream: Any, last: Callable[[], None]) -> AsyncIterator[Any]:
    """A stream, and a call when it has ended, was broken off, or its client has left."""
    try:
        async for piece in stream:
            yield piece
    finally:
        last()
