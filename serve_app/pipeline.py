"""The steps of a request, which HTTP and gRPC share.

    identify -> authorize -> set the deadline -> limit -> run -> translate errors -> trace, record

Each protocol implements `Call`, which reads its requests and writes its responses. A step of every
request is a method of `Pipeline`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from serve_app import request_log
from serve_app.auth import Key, Keys, permit
from serve_app.metrics import Metrics
from serve_app.problems import Problem, internal, too_late
from serve_app.request_log import Outcome
from serve_app.sender import Sender, request_id_of
from serve_app.service.coalescer import Timing
from serve_app.service.service import Service
from serve_app.tracing import Tracer

log = logging.getLogger("finsent.requests")

T = TypeVar("T")
CLIENT_LEFT = 499  # status in logs and metrics of a request whose client did not wait (from nginx)


@dataclass(frozen=True, slots=True)
class Operation:
    """Description of an operation, for the pipeline."""

    name: str  # in logs and metrics
    role: str | None = "predict"  # that the API key needs; None: no key is needed
    has_body: bool = False  # its body is limited, and refused early while the replica is overloaded
    has_deadline: bool = True  # it ends with the problem `deadline_exceeded` when its time is up


class Call(ABC, Generic[T]):
    """One request on its way through the pipeline, in the terms of its protocol."""

    __slots__ = (
        "code",
        "deadline",
        "headers",
        "model_version",
        "operation",
        "sender",
        "started",
        "status",
        "timing",
    )

    def __init__(self, operation: Operation, headers: Mapping[str, str]) -> None:
        self.operation = operation
        self.headers = headers  # names in lower case
        self.started = time.perf_counter()
        self.sender = Sender("")  # until `Pipeline` identifies it
        self.deadline = 0.0  # seconds that the request may take
        self.status = CLIENT_LEFT  # of HTTP, until there is a response
        self.code: str | None = None  # of the request's problem
        self.timing: Timing | None = None  # None: the model was not asked
        self.model_version: str | None = None  # that was asked

    def waited(self) -> float:
        """Return the seconds that the request waited before it reached this process."""
        return 0.0

    @abstractmethod
    def body_size(self) -> int:
        """Return the size of the body in bytes, as far as it is known before it is read."""

    @abstractmethod
    async def respond(self) -> T:
        """Read the request, run its operation, and return the response.

        Raises:
            Problem: the request is refused.
        """

    @abstractmethod
    def refuse(self, problem: Problem) -> T:
        """Return the response for a refused request, or raise what the protocol wants raised."""

    def trace(self, tracer: Tracer, outcome: Outcome) -> None:
        """Make the spans of the request; gRPC has none."""


class Pipeline:
    """Takes the requests of one replica through the steps that all of them share."""

    def __init__(
        self, service: Service, keys: Keys, metrics: Metrics, tracer: Tracer | None = None
    ) -> None:
        self._service, self._keys, self._metrics = service, keys, metrics
        self._tracer = tracer

    async def run(self, call: Call[T]) -> T:
        """Return the response to a request.

        Raises:
            Problem: the request is refused, and its protocol reports that by an exception.
        """
        key = self._identify(call)
        self._service.admission.requests += 1
        try:
            try:
                self._authorize(call, key)
                self._set_deadline(call)
                self._limit(call)
                return await self._respond_in_time(call)
            except Exception as error:
                problem = _translated(error, call.sender.request_id)
                call.code = problem.code
                return call.refuse(problem)
        finally:
            self._service.admission.requests -= 1
            self._record(call)

    def _identify(self, call: Call[T]) -> Key | None:
        key = None if call.operation.role is None else self._keys.find(call.headers)
        client = call.headers.get(self._service.config.canary_header)
        call.sender = Sender(request_id_of(call.headers), key.name if key else None, client)
        return key

    def _authorize(self, call: Call[T], key: Key | None) -> None:
        if call.operation.role is not None:
            permit(key, call.operation.role)

    def _set_deadline(self, call: Call[T]) -> None:
        requested = call.headers.get("x-request-timeout-ms")
        call.deadline = self._service.admission.deadline(requested, call.waited())
        if call.operation.has_deadline:
            call.sender = replace(call.sender, seconds=call.deadline)

    def _limit(self, call: Call[T]) -> None:
        # Before the body is read or parsed. Under overload every step of a request waits for all
        # other requests, so a refusal must be a single step.
        if call.operation.has_body:
            self._service.admission.admit_body(call.body_size())

    async def _respond_in_time(self, call: Call[T]) -> T:
        if not call.operation.has_deadline:
            return await call.respond()
        try:
            async with asyncio.timeout(call.deadline):
                return await call.respond()
        except TimeoutError:
            raise too_late(call.deadline) from None

    def _record(self, call: Call[T]) -> None:
        outcome = Outcome(
            call.operation.name,
            call.sender,
            call.status,
            time.perf_counter() - call.started,
            call.code,
            call.model_version,
            call.timing,
        )
        self._metrics.request(outcome)
        if self._tracer is not None:
            call.trace(self._tracer, outcome)
        request_log.answered(self._service.config.log_requests, outcome)


def _translated(error: Exception, request_id: str) -> Problem:
    """Return the problem that the client gets for an error; log errors of this server."""
    if isinstance(error, Problem):
        return error
    log.exception("request %s failed", request_id)
    return internal(request_id)
