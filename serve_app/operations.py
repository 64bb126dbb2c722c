"""What the operations of HTTP have in common: key, body, deadline, problems, counters, log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serve_app import logs
from serve_app.auth import Keys, permit
from serve_app.coalescer import Timing
from serve_app.incoming import (
    Asker,
    body_is_left,
    declared,
    read_body,
    request_id_of,
    until_left,
    waited,
)
from serve_app.logs import Outcome
from serve_app.metrics import Metrics
from serve_app.problems import Problem, too_late
from serve_app.service import Service
from serve_app.tracing import Tracer

log = logging.getLogger("finsent.requests")

_LEFT = 499  # the client is gone; nobody reads the answer

Handler = Callable[["Call"], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """An operation and where it is."""

    path: str
    name: str  # in logs and metrics
    handler: Handler
    method: str = "POST"
    role: str | None = "predict"  # that the request's key needs; None: no key
    body: bool = False  # it has one, of at most `limits.body_bytes`
    problem: Callable[[Problem, str], Response] = Problem.response  # with the request's id


class Call:
    """One request on its way through a handler."""

    __slots__ = ("asker", "body", "deadline", "headers", "request", "started", "timing", "version")

    def __init__(self, request: Request, asker: Asker, deadline: float) -> None:
        self.request, self.asker = request, asker
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


class Operations:
    """Makes endpoints of handlers."""

    def __init__(
        self,
        service: Service,
        keys: Keys,
        metrics: Metrics,
        returns_id: bool,
        tracer: Tracer | None = None,
    ) -> None:
        """Make one for a replica.

        Args:
            returns_id: put the request's id into the answer's headers; Serve does it by itself.
        """
        self._service, self._keys, self._metrics = service, keys, metrics
        self._returns_id, self._tracer = returns_id, tracer

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: key, body, deadline, problems, request id, counters, one line of log."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            key = None if route.role is None else self._keys.find(request.headers)
            asker = Asker(request_id_of(request.headers), key.name if key else None)
            code: str | None = None
            call: Call | None = None
            self._service.requests += 1
            try:
                if route.role is not None:
                    permit(key, route.role)
                call = Call(request, asker, self._deadline(request))
                response = await self._answer(route, call)
            except Problem as problem:
                code = problem.code
                response = route.problem(problem, asker.request_id)
                if code == "deadline_exceeded" and body_is_left(request):
                    # Else the server reads on, for as long as the client trickles.
                    response.headers["connection"] = "close"
            except ClientDisconnect:  # while its body was read
                response = Response(status_code=_LEFT)
            except Exception:
                log.exception("request %s failed", asker.request_id)
                code = "internal"
                detail = f"quote request {asker.request_id}"
                response = route.problem(Problem(code, detail), asker.request_id)
            finally:
                self._service.requests -= 1
            if self._returns_id:
                response.headers["x-request-id"] = asker.request_id
            seconds = time.perf_counter() - started
            version, timing = (call.version, call.timing) if call else (None, None)
            self._tell(
                request,
                response,
                Outcome(route.name, asker, response.status_code, seconds, code, version, timing),
            )
            return response

        return endpoint

    def _tell(self, request: Request, response: Response, outcome: Outcome) -> None:
        self._metrics.request(outcome)
        if self._tracer is not None:
            self._tracer.answered(request, response, outcome)
        logs.answered(self._service.config.log_requests, outcome)

    def _deadline(self, request: Request) -> float:
        return self._service.deadline(request.headers.get("x-request-timeout-ms"), waited(request))

    async def _answer(self, route: Route, call: Call) -> Response:
        if route.body:
            # Before a byte is read: under overload each step of a request waits for all others, so
            # a refusal must be one step.
            self._service.admit_body(declared(call.request))
            response = await self._in_time(route.handler, call)
        else:
            response = await route.handler(call)
        response.headers.update(call.headers)
        return response

    async def _in_time(self, handler: Handler, call: Call) -> Response:
        """Read the body and run a handler until it answers, its deadline passes, or its client
        leaves."""
        try:
            async with asyncio.timeout(call.deadline):
                call.body = await read_body(call.request, self._service.config.limits.body_bytes)
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

    async def unknown(self, request: Request, error: Exception) -> Response:
        """Answer a path or method that is not there."""
        assert isinstance(error, HTTPException)
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        docs = f"{request.scope.get('root_path', '')}/docs"
        problem = Problem(code, f"{request.method} is not taken there; see {docs}")
        request_id = request_id_of(request.headers)
        response = problem.response(request_id)
        response.headers.update(error.headers or {})
        if self._returns_id:
            response.headers["x-request-id"] = request_id
        return response
