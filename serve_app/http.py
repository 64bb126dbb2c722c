"""The HTTP API: requests in, answers or problems out. All work is `serve_app.service`'s."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from finsent.serving.config import LimitsConfig
from serve_app import logs, schemas
from serve_app.auth import Keys
from serve_app.coalescer import Timing
from serve_app.explain import explain
from serve_app.files import read_csv, scored_csv
from serve_app.incoming import declared, read_body, request_id_of, steady, until_left, waited
from serve_app.metrics import CONTENT_TYPE, Metrics
from serve_app.openapi import describe
from serve_app.pages import pages, static
from serve_app.problems import Problem, too_late
from serve_app.service import Answer, Service
from serve_app.tracing import Tracer

log = logging.getLogger("finsent.requests")

JSON = "application/json"
_LEFT = 499  # the client is gone; nobody reads the answer
_FILE_WAIT = 5  # seconds after which another file may be tried, where too many are at work

Handler = Callable[["Call"], Awaitable[Response]]
# Text, truncation and request id; see `serve_app.explain.explain`.
Explain = Callable[
    [Any, Truncate | None, str], Awaitable[tuple[Answer, Timing, str, list[dict[str, Any]]]]
]


# How a shadow compares.
Shadow = Callable[[], Awaitable[Any]]


class Call:
    """One request on its way through a handler."""

    __slots__ = (
        "body", "deadline", "headers", "request", "request_id", "started", "timing", "version"
    )  # fmt: skip

    def __init__(self, request: Request, request_id: str, deadline: float) -> None:
        self.request, self.request_id = request, request_id
        self.deadline = deadline  # seconds from the start
        self.started = time.perf_counter()
        self.body = b""
        self.headers: dict[str, str] = {}  # of the answer
        self.timing: Timing | None = None  # None: the model was not asked
        self.version: str | None = None  # of the model that was asked

    def timed(self, timing: Timing) -> None:
        """Tell the client how its texts fared."""
        self.timing = timing
        self.headers["x-queue-time"] = f"{timing.queued * 1000:.2f}"
        self.headers["x-inference-time"] = f"{timing.computed * 1000:.2f}"
        self.headers["x-batch-size"] = str(timing.rows)


class Api:
    """The operations of one replica."""

    def __init__(
        self, service: Service, keys: Keys, metrics: Metrics, explain: Explain,
        shadow: Shadow | None, returns_id: bool, tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        self._tracer = tracer
        self._service, self._keys, self._metrics = service, keys, metrics
        self._explain, self._shadow, self._returns_id = explain, shadow, returns_id
        self._files = 0  # that are being scored

    @property
    def _limits(self) -> LimitsConfig:
        return self._service.config.limits  # of now: they change at run time

    # --- what all have in common ---

    def operation(
        self, name: str, handler: Handler, role: str | None = "predict", body: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: key, body, deadline, problems, request id, counters, one line of log.

        Args:
            role: that the request's key needs; None: no key.
            body: it has one, of at most `limits.body_bytes`.
        """

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            request_id = request_id_of(request.headers)
            code: str | None = None
            call: Call | None = None
            self._service.requests += 1
            try:
                if role is not None:
                    self._keys.check(request.headers, role)
                call = Call(
                    request,
                    request_id,
                    self._service.deadline(
                        request.headers.get("x-request-timeout-ms"), waited(request)
                    ),
                )
                if body:
                    # Before a byte is read: under overload each step of a request waits for all
                    # others, so a refusal must be one step.
                    self._service.admit_body(declared(request))
                    response = await self._in_time(handler, call)
                else:
                    response = await handler(call)
                response.headers.update(call.headers)
            except Problem as problem:
                code = problem.code
                response = problem.response(request_id)
            except ClientDisconnect:  # while its body was read
                response = Response(status_code=_LEFT)
            except Exception:
                log.exception("request %s failed", request_id)
                code = "internal"
                response = Problem(code, f"quote request {request_id}").response(request_id)
            finally:
                self._service.requests -= 1
            if self._returns_id:
                response.headers["x-request-id"] = request_id
            seconds = time.perf_counter() - started
            self._metrics.request(name, response.status_code, seconds)
            if self._tracer is not None:
                self._tracer.answered(
                    request, response, seconds, request_id, code,
                    call.version if call else None, call.timing if call else None,
                )  # fmt: skip
            if code is not None:
                self._metrics.problem(code)
            logs.answered(
                self._service.config.log_requests, request_id, name, response.status_code,
                seconds, code, call.version if call else None, call.timing if call else None,
            )  # fmt: skip
            return response

        return endpoint

    async def _in_time(self, handler: Handler, call: Call) -> Response:
        """Read the body and run a handler until it answers, its deadline passes, or its client
        leaves."""
        try:
            async with asyncio.timeout(call.deadline):
                call.body = await read_body(call.request, self._limits.body_bytes)
                return await self._while_there(handler, call)
        except TimeoutError:
            raise too_late(call.deadline) from None

    async def _while_there(self, handler: Handler, call: Call) -> Response:
        """Run a handler until it answers or its client leaves."""
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave(done: asyncio.Task[Any]) -> None:
            nonlocal left
            if not done.cancelled() and done.exception() is None:
                left = True
                task.cancel()

        gone = asyncio.create_task(until_left(call.request))
        gone.add_done_callback(leave)
        try:
            return await handler(call)
        except asyncio.CancelledError:
            if not left:
                raise
            task.uncancel()
            return Response(status_code=_LEFT)
        finally:
            gone.remove_done_callback(leave)
            gone.cancel()

    # --- operations ---

    async def predict(self, call: Call) -> Response:
        """One text, a list, or text-embeddings-inference's form of both."""
        asked: schemas.PredictRequest = schemas.parse(schemas.PredictRequest, call.body)
        given = [n for n in ("text", "texts", "inputs") if getattr(asked, n) is not None]
        if len(given) != 1:
            raise Problem("invalid_request", "give one of text, texts and inputs")
        if given == ["inputs"]:
            return await self._predict_tei(call, asked)
        for name in ("truncation_direction", "parameters"):
            if getattr(asked, name) is not None:
                raise Problem("invalid_request", f"{name}: goes with inputs only")
        if isinstance(asked.truncate, bool):
            raise Problem("invalid_request", "truncate: write right, left or error")
        if asked.text is not None:
            [answer] = await self._classify(call, [asked.text], asked.truncate)
            if isinstance(answer, Problem):
                raise answer
            return _json(schemas.answer_body(answer, asked.raw_scores, call.request_id))
        answers = await self._classify(call, asked.texts or [], asked.truncate)
        return _json(
            {
                "predictions": [
                    one.body() if isinstance(one, Problem)
                    else schemas.answer_body(one, asked.raw_scores, call.request_id)
                    for one in answers
                ],
                "model_version": self._service.model.version,
                "request_id": call.request_id,
            }
        )  # fmt: skip

    async def _predict_tei(self, call: Call, asked: schemas.PredictRequest) -> Response:
        inputs = asked.inputs
        single = isinstance(inputs, str)
        texts = [inputs] if single else inputs
        assert isinstance(texts, list)
        if texts and all(isinstance(one, list) and len(one) == 1 for one in texts):
            texts = [one[0] for one in texts]
        # Its default is to refuse what is too long; `truncate: true` cuts.
        policy: Any = asked.truncate
        if policy is None or isinstance(policy, bool):
            policy = (asked.truncation_direction or "right").lower() if policy else "error"
        bodies = []
        for one in await self._classify(call, texts, policy):
            if isinstance(one, Problem):
                raise one
            bodies.append(schemas.tei_body(one, asked.raw_scores))
        return _json(bodies[0] if single else bodies)

    async def _classify(
        self, call: Call, texts: list[Any], truncate: Any
    ) -> list[Answer | Problem]:
        answers, timing = await self._service.answer(texts, truncate, call.request_id)
        call.timed(timing)
        call.version = next((one.model_version for one in answers if isinstance(one, Answer)), None)
        return answers

    async def explain(self, call: Call) -> Response:
        """One text's label, word by word."""
        asked: schemas.ExplainRequest = schemas.parse(schemas.ExplainRequest, call.body)
        answer, timing, text, words = await self._explain(
            asked.text, asked.truncate, call.request_id
        )
        call.timed(timing)
        call.version = answer.model_version
        return _json(schemas.explain_body(answer, text, words, call.request_id))

    async def predict_file(self, call: Call) -> Response:
        """A CSV with a header in, the same with answers out, piece by piece."""
        most = self._limits.files
        if self._files >= most:
            raise Problem(
                "overloaded",
                f"{most} files are being scored (serve.limits.files); try again in {_FILE_WAIT} s",
                retry_after=_FILE_WAIT,
            )
        self._files += 1
        try:
            body = await read_body(steady(call.request, call.deadline), self._limits.file_bytes)
            table = read_csv(body, call.request.headers, call.request.query_params.get("column"))
            call.version = self._service.model.version  # 503 rather than an empty stream
        except BaseException as error:
            self._file_done()
            if isinstance(error, TimeoutError):
                raise too_late(call.deadline) from None
            raise
        return _Streamed(scored_csv(table, self._service, call.request_id), self._file_done)

    def _file_done(self) -> None:
        self._files -= 1

    async def info(self, _: Call) -> Response:
        """What answers here, and within which limits."""
        found = describe_service(self._service)
        if self._service.config.shadow is not None and self._shadow is not None:
            found["shadow"] = await self._shadow()
        return _json(found)

    async def health(self, _: Call) -> Response:
        """Whether it can answer, and how much waits."""
        if not self._service.ready:
            raise Problem("not_ready", "the model is being loaded; try again in a few seconds")
        return _json(
            {
                "status": "ok",
                "model_version": self._service.model.version,
                **self._service.stats(),
                "requests": self._service.requests,
            }
        )

    async def live(self, _: Call) -> Response:
        """The process is there."""
        return _json({"status": "ok"})

    async def metrics(self, _: Call) -> Response:
        """Counters of this replica."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def unknown(self, request: Request, error: Exception) -> Response:
        """A path or method that is not there."""
        assert isinstance(error, HTTPException)
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        problem = Problem(code, f"{request.method} is not taken there; see /docs")
        request_id = request_id_of(request.headers)
        response = problem.response(request_id)
        response.headers.update(error.headers or {})
        if self._returns_id:
            response.headers["x-request-id"] = request_id
        return response


class _Streamed(StreamingResponse):
    """A CSV, piece by piece; says when it has ended, whether its client took all of it or not."""

    def __init__(self, pieces: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(pieces, media_type="text/csv; charset=utf-8")
        self._ended = ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


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
    api = Api(
        service, keys, metrics, explain_by or partial(explain, service), shadow, returns_id, tracer
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = None
        if service.config.watch_seconds:
            watching = asyncio.create_task(service.watch())
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if at_end is not None:
            await at_end()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="finsent", summary="Financial sentiment: positive, neutral or negative",
        version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
        exception_handlers={404: api.unknown, 405: api.unknown},
    )  # fmt: skip
    for path, name, handler, method, role, body in (
        ("/predict", "predict", api.predict, "POST", "predict", True),
        ("/explain", "explain", api.explain, "POST", "predict", True),
        ("/predict/file", "predict_file", api.predict_file, "POST", "predict", False),
        ("/info", "info", api.info, "GET", "predict", False),
        ("/metrics", "metrics", api.metrics, "GET", "admin", False),
        ("/health", "health", api.health, "GET", None, False),
        ("/readyz", "readyz", api.health, "GET", None, False),
        ("/livez", "livez", api.live, "GET", None, False),
    ):
        endpoint = api.operation(name, handler, role, body)
        app.add_route(path, endpoint, [method], include_in_schema=False)
    for path, (content, kind) in pages().items():
        app.add_route(path, static(content, kind), ["GET"], include_in_schema=False)
    app.openapi = lambda: describe(service.config.limits)  # type: ignore[method-assign] # FastAPI's own way
    if service.config.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=service.config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-timeout-ms"],
        )  # fmt: skip
    return app


def describe_service(service: Service) -> dict[str, Any]:
    """What answers here, and within which limits, as JSON."""
    model, config = service.model, service.config
    engine = model.engine
    return {
        "model": config.model,
        "model_version": model.version,
        "labels": list(LABELS),
        "max_length": engine.max_length,
        "temperature": engine.temperature,
        "threshold": engine.threshold,
        "backend": engine.backend.name,
        "device": engine.backend.device,
        "streams": engine.streams,
        "token_budget": model.coalescer.budget,
        "measured_rows_per_second": engine.rates,
        "loaded": model.loaded,
        "refused": service.refused_version,
        "limits": config.limits.model_dump(),
        **model.details,
    }


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=JSON)
