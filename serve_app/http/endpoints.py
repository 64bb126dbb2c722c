"""HTTP requests and responses in the terms of the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serve_app.http.body import body_is_left, declared_size, proxy_seconds, read_body, until_left
from serve_app.http.responses import problem_response
from serve_app.pipeline import CLIENT_LEFT, Call, Operation, Pipeline
from serve_app.problems import Problem
from serve_app.request_log import Outcome
from serve_app.sender import request_id_of
from serve_app.service.coalescer import Timing
from serve_app.service.service import Service
from serve_app.tracing import Tracer

Handler: TypeAlias = Callable[["HttpCall"], Awaitable[Response]]
ProblemWriter: TypeAlias = Callable[[Problem, str], Response]  # the str: the request's id
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """The path of an operation."""

    path: str
    name: str  # in logs and metrics
    handler: Handler
    method: str = "POST"
    role: str | None = "predict"  # that the request's key needs; None: no key
    has_body: bool = False  # of at most `limits.body_bytes`; such operations have a deadline
    write_problem: ProblemWriter = problem_response

    def operation(self) -> Operation:
        """Return what the pipeline has to know of the operation."""
        return Operation(self.name, self.role, self.has_body, has_deadline=self.has_body)


class HttpCall(Call[Response]):
    """One HTTP request on its way through the pipeline and its handler."""

    __slots__ = ("_body_limit", "_route", "body", "request", "response", "response_headers")

    def __init__(
        self, operation: Operation, route: Route, request: Request, body_limit: int
    ) -> None:
        super().__init__(operation, request.headers)
        self._route, self._body_limit = route, body_limit
        self.request = request
        self.response: Response | None = None
        self.body = b""
        self.response_headers: dict[str, str] = {}

    def waited(self) -> float:
        """Return the seconds since a proxy accepted the request."""
        return proxy_seconds(self.request)

    def body_size(self) -> int:
        """Return the declared size of the body in bytes."""
        return declared_size(self.request)

    async def respond(self) -> Response:
        """Read the body and run the handler until it answers or the client leaves."""
        try:
            if self.operation.has_body:
                self.body = await read_body(self.request, self._body_limit)
                response = await self._while_client_waits()
            else:
                response = await self._route.handler(self)
        except ClientDisconnect:  # while the body was read
            response = Response(status_code=CLIENT_LEFT)
        response.headers.update(self.response_headers)
        self.response, self.status = response, response.status_code
        return response

    def refuse(self, problem: Problem) -> Response:
        """Return the problem in the words of the route's dialect."""
        response = self._route.write_problem(problem, self.sender.request_id)
        if problem.code == "deadline_exceeded" and body_is_left(self.request):
            # Else the server reads the body for as long as the client trickles.
            response.headers["connection"] = "close"
        self.response, self.status = response, response.status_code
        return response

    def trace(self, tracer: Tracer, outcome: Outcome) -> None:
        """Make the spans of the request."""
        if self.response is not None:
            tracer.answered(self.request, self.response, outcome)

    def add_timing(self, timing: Timing) -> None:
        """Report in response headers, logs and spans where the time of the texts went."""
        self.timing = timing
        self.response_headers["x-queue-time"] = f"{timing.queued * 1000:.2f}"
        self.response_headers["x-inference-time"] = f"{timing.computed * 1000:.2f}"
        self.response_headers["x-batch-size"] = str(timing.rows)

    async def _while_client_waits(self) -> Response:
        """Run the handler until it answers or the client leaves."""
        task = asyncio.current_task()
        assert task is not None
        has_left = False

        def leave(done: asyncio.Task[Any]) -> None:
            nonlocal has_left
            if not done.cancelled() and done.exception() is None:
                has_left = True
                task.cancel()

        watcher = asyncio.create_task(until_left(self.request))
        watcher.add_done_callback(leave)
        try:
            return await self._route.handler(self)
        except asyncio.CancelledError:
            if not has_left:
                raise
            task.uncancel()
            return Response(status_code=CLIENT_LEFT)
        finally:
            watcher.remove_done_callback(leave)
            watcher.cancel()


class Endpoints:
    """Makes endpoints of routes."""

    def __init__(self, service: Service, pipeline: Pipeline, returns_id: bool) -> None:
        """Make the endpoints of a replica.

        Args:
            returns_id: put the request's id into the response headers; Serve itself does that.
        """
        self._service, self._pipeline, self._returns_id = service, pipeline, returns_id

    def endpoint(self, route: Route) -> Endpoint:
        """Return the endpoint of a route."""
        operation = route.operation()

        async def endpoint(request: Request) -> Response:
            limit = self._service.config.limits.body_bytes
            call = HttpCall(operation, route, request, limit)
            response = await self._pipeline.run(call)
            return self._with_id(response, call.sender.request_id)

        return endpoint

    async def unknown(self, request: Request, error: Exception) -> Response:
        """Answer a path or method that does not exist."""
        assert isinstance(error, HTTPException)
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        docs = f"{request.scope.get('root_path', '')}/docs"
        problem = Problem(
            code, f"{request.method} is not supported at this path. See {docs} for the operations."
        )
        request_id = request_id_of(request.headers)
        response = problem_response(problem, request_id)
        response.headers.update(error.headers or {})
        return self._with_id(response, request_id)

    def _with_id(self, response: Response, request_id: str) -> Response:
        if self._returns_id:
            response.headers["x-request-id"] = request_id
        return response
