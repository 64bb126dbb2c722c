"""The HTTP API: requests in, answers or problems out. All work is `serve_app.service`'s."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import resources
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from finsent.serving.config import LimitsConfig
from serve_app import schemas
from serve_app.auth import Keys
from serve_app.coalescer import Timing
from serve_app.explain import explain
from serve_app.files import read_csv, scored_csv
from serve_app.metrics import CONTENT_TYPE, Metrics
from serve_app.openapi import describe
from serve_app.problems import Problem
from serve_app.service import Answer, Service
from serve_app.tracing import Tracer

log = logging.getLogger("finsent.requests")

JSON = "application/json"
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ID_LENGTH = 128

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
            request_id = _request_id(request)
            code: str | None = None
            call: Call | None = None
            self._service.requests += 1
            try:
                if role is not None:
                    self._keys.check(request.headers, role)
                call = Call(
                    request,
                    request_id,
                    self._service.deadline(request.headers.get("x-request-timeout-ms")),
                )
                if body:
                    # Before a byte is read: under overload each step of a request waits for all
                    # others, so a refusal must be one step.
                    self._service.admit_body(_declared(request))
                    call.body = await _read(request, self._limits.body_bytes)
                    response = await self._in_time(handler, call)
                else:
                    response = await handler(call)
                response.headers.update(call.headers)
            except Problem as problem:
                code = problem.code
                response = problem.response(request_id)
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
                if code != "overloaded":  # they come by the thousand, and are counted
                    status = response.status_code
                    log.info("%s %s %d %s %.4f", request_id, name, status, code, seconds)
            return response

        return endpoint

    async def _in_time(self, handler: Handler, call: Call) -> Response:
        """Run a handler until it answers, its deadline passes, or its client leaves."""
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave(done: asyncio.Task[Any]) -> None:
            nonlocal left
            if not done.cancelled() and done.exception() is None:
                left = True
                task.cancel()

        gone = asyncio.create_task(_disconnected(call.request))
        gone.add_done_callback(leave)
        try:
            async with asyncio.timeout(call.deadline):
                return await handler(call)
        except TimeoutError:
            raise Problem(
                "deadline_exceeded",
                f"no answer within {call.deadline * 1000:.0f} ms; allow more by the header "
                "X-Request-Timeout-Ms, or try again later",
            ) from None
        except asyncio.CancelledError:
            if not left:
                raise
            task.uncancel()
            return Response(status_code=499)  # nobody reads it
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
        # Its default is to refuse what is too long; `truncate: true` cuts on the right.
        policy: Any = asked.truncate
        if policy is None or isinstance(policy, bool):
            policy = "right" if policy else "error"
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
        body = await _read(call.request, self._limits.file_bytes)
        table = read_csv(body, call.request.headers, call.request.query_params.get("column"))
        call.version = self._service.model.version  # 503 rather than an empty stream
        return StreamingResponse(
            scored_csv(table, self._service, call.request_id), media_type="text/csv; charset=utf-8"
        )

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
        request_id = _request_id(request)
        response = problem.response(request_id)
        response.headers.update(error.headers or {})
        if self._returns_id:
            response.headers["x-request-id"] = request_id
        return response


def build_app(
    service: Service,
    keys: Keys,
    metrics: Metrics | None = None,
    explain_by: Explain | None = None,
    shadow: Shadow | None = None,
    *,
    returns_id: bool = True,
) -> FastAPI:
    """The ASGI application of one replica.

    Hot paths are plain routes: FastAPI's own way to read a body takes longer than this service does
    for all that is not the model.

    Args:
        metrics: None: its own.
        explain_by: who explains; None: the service itself.
        shadow: asks how the shadow compares; None: there can't be one.
        returns_id: put the request's id into the answer's headers; Serve does it by itself.

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
    for path, (content, kind) in _page().items():
        app.add_route(path, _static(content, kind), ["GET"], include_in_schema=False)
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


def _page() -> dict[str, tuple[str, str]]:
    folder = resources.files("serve_app") / "page"
    files = {
        "/": ("index.html", "text/html"),
        "/page.js": ("page.js", "text/javascript"),
        "/page.css": ("page.css", "text/css"),
        "/docs": ("docs.html", "text/html"),
        "/docs.js": ("docs.js", "text/javascript"),
    }
    return {
        path: ((folder / name).read_text(encoding="utf-8"), kind)
        for path, (name, kind) in files.items()
    }


def _static(content: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    headers = {
        "content-security-policy": _PAGE_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def endpoint(_: Request) -> Response:
        return HTMLResponse(content, headers=headers, media_type=kind)

    return endpoint


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=JSON)


def _request_id(request: Request) -> str:
    """The client's own, where it is a plain one."""
    given = request.headers.get("x-request-id", "")
    if given and len(given) <= _ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex


def _declared(request: Request) -> int:
    """Bytes that the body is said to have; 0 where that is not said."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if declared.isdigit() else 0


async def _read(request: Request, most: int) -> bytes:
    """The body, as far as it is allowed to go."""
    too_large = Problem(
        "body_too_large", f"the body has more than {most} bytes; send less at a time"
    )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "compressed bodies are not taken; send it as it is")
    if _declared(request) > most:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
