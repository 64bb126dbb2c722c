"""The HTTP API: requests in, answers or problems out. All work is `serve_app.service`'s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from serve_app import schemas, tei
from serve_app.answers import json_answer
from serve_app.auth import Keys
from serve_app.coalescer import Timing
from serve_app.config import LimitsConfig
from serve_app.explain import explain
from serve_app.files import read_upload, scored
from serve_app.incoming import Asker, Pace, paced, read_body
from serve_app.metrics import CONTENT_TYPE, Metrics
from serve_app.mounting import Mounted, elsewhere
from serve_app.openapi import describe
from serve_app.operations import Call, Operations, Route
from serve_app.pages import pages, static
from serve_app.problems import Problem
from serve_app.service import Answer, Service
from serve_app.tei import Tei
from serve_app.tracing import Tracer
from serve_app.vllm import Vllm

log = logging.getLogger("finsent.requests")

_FILE_WAIT = 5  # seconds after which another file may be tried, where too many are at work

# Text, truncation, sender and source; see `serve_app.explain.explain`.
Explain = Callable[
    [Any, Truncate | None, Asker, str | None],
    Awaitable[tuple[Answer, Timing, str, list[dict[str, Any]]]],
]
# How a shadow compares.
Shadow = Callable[[], Awaitable[Any]]


class Api:
    """The operations of one replica."""

    def __init__(
        self, service: Service, metrics: Metrics, explain: Explain, shadow: Shadow | None
    ) -> None:
        self._service, self._metrics = service, metrics
        self._explain, self._shadow = explain, shadow
        self._tei, self._vllm = Tei(service, self.classify), Vllm(service, self.classify)
        self._files = 0  # that are being scored

    def routes(self) -> list[Route]:
        """Return where each operation is."""
        return [
            Route("/predict", "predict", self.predict, body=True),
            Route("/explain", "explain", self.explain, body=True),
            Route("/predict/file", "predict_file", self.predict_file),
            Route("/info", "info", self.info, "GET"),
            Route("/model-card", "model_card", self.model_card, "GET"),
            Route("/metrics", "metrics", self.metrics, "GET", role="admin"),
            Route("/health", "health", self.health, "GET", role=None),
            Route("/readyz", "readyz", self.health, "GET", role=None),
            Route("/livez", "livez", self.live, "GET", role=None),
            Route("/ping", "ping", self.health, "GET", role=None),
            *self._tei.routes(),
            *self._vllm.routes(),
        ]

    @property
    def _limits(self) -> LimitsConfig:
        return self._service.config.limits  # of now: they change at run time

    async def predict(self, call: Call) -> Response:
        """One text, a list, or text-embeddings-inference's form of both."""
        asked: schemas.PredictRequest = schemas.parse(schemas.PredictRequest, call.body)
        if asked.form() == "inputs":
            assert asked.inputs is not None
            return await self._tei.predict(call, asked.inputs, asked)
        if asked.text is not None:
            [answer] = await self.classify(call, [asked.text], asked.truncate, asked.source)
            if isinstance(answer, Problem):
                raise answer
            return json_answer(schemas.answer_body(answer, asked.raw_scores, call.asker.request_id))
        answers = await self.classify(call, asked.texts or [], asked.truncate, asked.source)
        return json_answer(
            {
                "predictions": [
                    one.body()
                    if isinstance(one, Problem)
                    else schemas.answer_body(one, asked.raw_scores, call.asker.request_id)
                    for one in answers
                ],
                "model_version": self._service.model.version,
                "request_id": call.asker.request_id,
            }
        )

    async def classify(
        self, call: Call, texts: list[Any], truncate: Any, source: str | None
    ) -> list[Answer | Problem]:
        """Answer a request's texts, in order; what cannot be classified gets a problem."""
        answers, timing = await self._service.answer(texts, truncate, call.asker, source)
        call.timed(timing)
        call.version = next((one.model_version for one in answers if isinstance(one, Answer)), None)
        return answers

    async def explain(self, call: Call) -> Response:
        """One text's label, word by word."""
        asked: schemas.ExplainRequest = schemas.parse(schemas.ExplainRequest, call.body)
        answer, timing, text, words = await self._explain(
            asked.text, asked.truncate, call.asker, asked.source
        )
        call.timed(timing)
        call.version = answer.model_version
        return json_answer(schemas.explain_body(answer, text, words, call.asker.request_id))

    async def predict_file(self, call: Call) -> Response:
        """A CSV or text file in, its rows with answers out, piece by piece."""
        most = self._limits.files
        if self._files >= most:
            raise Problem(
                "overloaded",
                f"{most} files are being scored (serve.limits.files); try again in {_FILE_WAIT} s",
                retry_after=_FILE_WAIT,
            )
        self._files += 1
        try:
            pace = self._pace(call)
            body = await read_body(paced(call.request, pace), self._limits.file_bytes)
            upload = await read_upload(body, call.request.headers, call.request.query_params)
            call.version = self._service.model.version  # 503 rather than an empty stream
            self._service.calibration(self._service.model, upload.source)  # 422, too
        except BaseException:
            self._file_done()
            raise
        pieces = scored(upload, self._service, call.asker, pace)
        return _Streamed(pieces, upload.media_type, pace, call.asker, self._file_done)

    def _pace(self, call: Call) -> Pace:
        rate, seconds = self._limits.file_bytes_per_second, self._limits.file_seconds
        until = asyncio.get_running_loop().time() + seconds
        return Pace(call.deadline, rate, seconds, until)

    def _file_done(self) -> None:
        self._files -= 1

    async def info(self, _: Call) -> Response:
        """What answers here, and within which limits."""
        return json_answer(await describe_service(self._service, self._shadow))

    async def model_card(self, _: Call) -> Response:
        """Return the card of the model version: its data, all figures, its limits."""
        headers = {"x-content-type-options": "nosniff"}
        return Response(self._service.model.card, headers=headers, media_type="text/markdown")

    async def health(self, _: Call) -> Response:
        """Whether it can answer, and how much waits."""
        if not self._service.ready:
            raise Problem("not_ready", "the model is being loaded; try again in a few seconds")
        return json_answer(
            {
                "status": "ok",
                "model_version": self._service.model.version,
                **self._service.stats(),
                "requests": self._service.requests,
            }
        )

    async def live(self, _: Call) -> Response:
        """The process is there."""
        return json_answer({"status": "ok"})

    async def metrics(self, _: Call) -> Response:
        """Counters of this replica."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)


class _TooSlow(Exception):  # noqa: N818 # not an error of this server
    """A client does not take its answer."""


class _Streamed(StreamingResponse):
    """A file's rows, piece by piece; calls back at the end, whether the client took all or not."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        media_type: str,
        pace: Pace,
        asker: Asker,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(pieces, media_type=f"{media_type}; charset=utf-8")
        self._pace, self._asker, self._ended = pace, asker, ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, partial(self._send, send))
        except _TooSlow:  # the server closes a connection whose answer is not complete
            log.warning("request %s: the client reads too slowly", self._asker.request_id)
        finally:
            self._ended()

    async def _send(self, send: Any, message: Any) -> None:
        pace = self._pace
        # Past the deadline come rows that say so: for them a last stretch of patience.
        due = min(
            asyncio.get_running_loop().time() + len(message.get("body", b"")) / pace.rate,
            pace.until,
        )
        try:
            async with asyncio.timeout_at(due + pace.patience):
                await send(message)
        except TimeoutError:
            raise _TooSlow from None


def build_app(
    service: Service,
    keys: Keys,
    metrics: Metrics | None = None,
    explain_by: Explain | None = None,
    shadow: Shadow | None = None,
    *,
    returns_id: bool = True,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """The ASGI application of one replica.

    Hot paths are plain routes: FastAPI's own way to read a body takes longer than this service does
    for all that is not the model.

    Args:
        metrics: None: its own.
        explain_by: who explains; None: the service itself.
        shadow: asks how the shadow compares; None: there can't be one.
        returns_id: put the request's id into the answer's headers; Serve does it by itself.
        at_end: awaited when the last request is answered, and the replica ends.

    Raises:
        InputError: packages for `serve.otlp_endpoint` are missing.
        ConfigError: `serve.otlp_endpoint` is no address.
    """
    metrics = metrics or Metrics(service)
    collector = service.config.otlp_endpoint
    tracer = None if collector is None else Tracer(collector)
    operations = Operations(service, keys, metrics, returns_id, tracer)
    api = Api(service, metrics, explain_by or partial(explain, service), shadow)

    app = FastAPI(
        title="finsent",
        summary="Financial sentiment: positive, neutral or negative",
        version="1",
        lifespan=_lifespan(service, tracer, at_end),
        docs_url=None,
        redoc_url=None,
        exception_handlers={404: operations.unknown, 405: operations.unknown},
        redirect_slashes=False,  # to an address made of the header Host, without a proxy's prefix
    )
    _add_routes(app, operations, api.routes())
    app.openapi = lambda: describe(service.config.limits)  # type: ignore[method-assign] # FastAPI's own way
    if service.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-timeout-ms"],
        )
    app.add_middleware(Mounted, prefix=service.config.root_path)  # the outermost
    return app


def _lifespan(
    service: Service, tracer: Tracer | None, at_end: Callable[[], Awaitable[None]] | None
) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        if at_end is not None:
            await at_end()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)

    return lifespan


def _add_routes(app: FastAPI, operations: Operations, routes: list[Route]) -> None:
    endpoints = {route: operations.endpoint(route) for route in routes}
    for end in ("", "/"):  # a slash at the end is often a slip, and never another operation
        for route, endpoint in endpoints.items():
            path = f"{route.path.rstrip('/')}{end}" or "/"
            app.add_route(path, endpoint, [route.method], include_in_schema=False)
    for path, (content, kind) in pages().items():
        app.add_route(path, static(content, kind), ["GET"], include_in_schema=False)
    # Its files are relative to the path without a slash.
    app.add_route("/docs/", _to_docs, ["GET"], include_in_schema=False)


async def _to_docs(_: Request) -> Response:
    return elsewhere("../docs")


async def describe_service(service: Service, shadow: Shadow | None) -> dict[str, Any]:
    """What answers here, and within which limits, as JSON.

    Args:
        shadow: asks how the shadow compares; None: there can't be one.
    """
    model, config = service.model, service.config
    engine = model.engine
    found = {
        "model": config.model,
        "model_version": model.version,
        "labels": list(LABELS),
        "max_length": engine.max_length,
        "temperature": engine.temperature,
        "threshold": engine.threshold,
        "calibrations": service.calibrations(),
        "backend": engine.backend.name,
        "device": engine.backend.device,
        "streams": engine.streams,
        "token_budget": model.coalescer.budget,
        "measured_rows_per_second": engine.rates,
        "loaded": model.loaded,
        "refused": service.refused_version,
        "user_config_refused": service.refused_config,
        "limits": config.limits.model_dump(),
        **tei.info(service),
        **model.details,
        "gate": model.gate,
    }
    if config.shadow is not None and shadow is not None:
        found["shadow"] = await shadow()
    return found
