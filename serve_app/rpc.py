"""The gRPC API: the operations of `serve_app.http`, as `proto/sentiment.proto` has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Parsed

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from serve_app import logs
from serve_app.auth import Keys, permit
from serve_app.coalescer import Timing
from serve_app.http import Explain, Shadow, describe_service
from serve_app.incoming import Asker, request_id_of
from serve_app.logs import Outcome
from serve_app.metrics import Metrics
from serve_app.problems import Problem, too_late
from serve_app.proto import sentiment_pb2 as pb
from serve_app.service import Answer, Service

T = TypeVar("T")
# Bytes from `serve_app.grpc_server`; parsed where a config names the generated function.
Message: TypeAlias = bytes | Parsed

log = logging.getLogger("finsent.requests")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself refuses what is too large
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_TRUNCATE: dict[int, Truncate | None] = {
    pb.DEFAULT: None,
    pb.RIGHT: "right",
    pb.LEFT: "left",
    pb.ERROR: "error",
}


class Context(Protocol):
    """What is used of Serve's `RayServegRPCContext`."""

    def invocation_metadata(self) -> Any:
        """Pairs of names and values."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Of the answer."""

    def set_details(self, details: str) -> None:
        """Of the answer."""


@dataclass(slots=True)
class Call:
    """One request on its way."""

    asker: Asker
    timing: Timing | None = None  # None: the model was not asked
    version: str | None = None  # of the model that was asked


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """What a method of the service does."""

    name: str  # in logs and metrics
    kind: Any  # of its requests
    work: Callable[[Any, Call], Awaitable[T]]
    role: str | None = "predict"  # that the request's key needs; None: no key
    body: bool = False  # it asks the model


class Rpc:
    """The operations of one replica."""

    def __init__(
        self,
        service: Service,
        keys: Keys,
        metrics: Metrics,
        explain: Explain,
        shadow: Shadow | None = None,
    ) -> None:
        self._service, self._keys, self._metrics = service, keys, metrics
        self._explain, self._shadow = explain, shadow

    async def predict(self, message: Message, context: Context) -> pb.PredictResponse:
        """One text."""

        async def work(request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
            [answer], call.timing = await self._service.answer(
                [request.text], _truncate(request.truncate), call.asker, request.source or None
            )
            if isinstance(answer, Problem):
                raise answer
            call.version = answer.model_version
            return pb.PredictResponse(
                prediction=_prediction(answer, request.raw_scores), request_id=call.asker.request_id
            )

        operation = Operation("grpc_predict", pb.PredictRequest, work, body=True)
        return await self._call(operation, message, context)

    async def predict_list(self, message: Message, context: Context) -> pb.PredictListResponse:
        """A list of texts; a problem in place of an answer where there is one."""

        async def work(request: pb.PredictListRequest, call: Call) -> pb.PredictListResponse:
            answers, call.timing = await self._service.answer(
                list(request.texts),
                _truncate(request.truncate),
                call.asker,
                request.source or None,
            )
            call.version = _version(answers)
            return pb.PredictListResponse(
                items=[_item(one, request.raw_scores) for one in answers],
                request_id=call.asker.request_id,
            )

        operation = Operation("grpc_predict_list", pb.PredictListRequest, work, body=True)
        return await self._call(operation, message, context)

    async def explain(self, message: Message, context: Context) -> pb.ExplainResponse:
        """One text's label, word by word."""

        async def work(request: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
            answer, call.timing, text, words = await self._explain(
                request.text, _truncate(request.truncate), call.asker, request.source or None
            )
            call.version = answer.model_version
            return pb.ExplainResponse(
                prediction=_prediction(answer, False),
                text=text,
                request_id=call.asker.request_id,
                words=[
                    pb.Word(**{**word, "by_label": pb.Probabilities(**word["by_label"])})
                    for word in words
                ],
            )

        operation = Operation("grpc_explain", pb.ExplainRequest, work, body=True)
        return await self._call(operation, message, context)

    async def info(self, message: Message, context: Context) -> pb.InfoResponse:
        """What answers here."""

        async def work(_: pb.InfoRequest, __: Call) -> pb.InfoResponse:
            found = await describe_service(self._service, self._shadow)
            return pb.InfoResponse(
                model_version=found["model_version"], json=orjson.dumps(found).decode()
            )

        return await self._call(Operation("grpc_info", pb.InfoRequest, work), message, context)

    async def health(self, message: Message, context: Context) -> pb.HealthResponse:
        """Whether it can answer."""

        async def work(_: pb.HealthRequest, __: Call) -> pb.HealthResponse:
            return pb.HealthResponse(status="ok", model_version=self._service.model.version)

        operation = Operation("grpc_health", pb.HealthRequest, work, role=None)
        return await self._call(operation, message, context)

    async def _call(self, operation: Operation[T], message: Message, context: Context) -> T:
        """Key, size, deadline, problems, counters, one line of log."""
        started = time.perf_counter()
        metadata = {key.lower(): str(value) for key, value in context.invocation_metadata()}
        key = None if operation.role is None else self._keys.find(metadata)
        call = Call(Asker(request_id_of(metadata), key.name if key else None))
        status, code = 200, None
        self._service.requests += 1
        try:
            if operation.role is not None:
                permit(key, operation.role)
            seconds = self._service.deadline(metadata.get("x-request-timeout-ms"))
            request = self._parse(operation, message)
            try:
                async with asyncio.timeout(seconds):
                    return await operation.work(request, call)
            except TimeoutError:
                raise too_late(seconds) from None
        except asyncio.CancelledError:  # the client has left
            status = 499
            raise
        except Exception as error:
            problem = self._problem(error, call.asker.request_id)
            status, code = problem.status, problem.code
            context.set_code(_CODES[status])
            context.set_details(f"{code}: {problem.detail}")
            raise problem from None
        finally:
            self._service.requests -= 1
            seconds = time.perf_counter() - started
            outcome = Outcome(
                operation.name, call.asker, status, seconds, code, call.version, call.timing
            )
            self._metrics.request(outcome)
            logs.answered(self._service.config.log_requests, outcome)

    def _parse(self, operation: Operation[Any], message: Message) -> Any:
        """The request, where there is room for it.

        Raises:
            Problem: the message is too large or cannot be parsed, or overloaded.
        """
        size = len(message) if isinstance(message, bytes) else message.ByteSize()
        if operation.body:
            self._service.admit_body(size)
        most = self._service.config.limits.body_bytes
        if size > most:
            raise Problem(
                "body_too_large", f"the message has more than {most} bytes; send less at a time"
            )
        if not isinstance(message, bytes):
            return message
        try:
            return operation.kind.FromString(message)
        except DecodeError:
            name = operation.kind.DESCRIPTOR.full_name
            raise Problem("invalid_request", f"the message is no {name}") from None

    def _problem(self, error: Exception, request_id: str) -> Problem:
        if isinstance(error, Problem):
            return error
        log.exception("request %s failed", request_id)
        return Problem("internal", f"quote request {request_id}")


def _version(answers: list[Answer | Problem]) -> str | None:
    return next((one.model_version for one in answers if isinstance(one, Answer)), None)


def _truncate(value: int) -> Truncate | None:
    if value not in _TRUNCATE:
        raise Problem("invalid_request", f"truncate={value}: write RIGHT, LEFT or ERROR")
    return _TRUNCATE[value]


def _probabilities(values: Mapping[str, float]) -> pb.Probabilities:
    return pb.Probabilities(**values)


def _prediction(answer: Answer, raw_scores: bool) -> pb.Prediction:
    found = answer.prediction
    return pb.Prediction(
        label=pb.Label.Value(found.label.upper()),
        score=found.score,
        probabilities=_probabilities(found.probabilities),
        model_version=answer.model_version,
        abstained=found.abstained,
        truncated=answer.truncated,
        polarity=found.polarity,
        calibration=answer.calibration or "",
        raw_scores=(
            _probabilities(dict(zip(LABELS, answer.logits, strict=True))) if raw_scores else None
        ),
    )


def _item(one: Answer | Problem, raw_scores: bool) -> pb.PredictListResponse.Item:
    if isinstance(one, Problem):
        return pb.PredictListResponse.Item(problem=pb.Problem(code=one.code, detail=one.detail))
    return pb.PredictListResponse.Item(prediction=_prediction(one, raw_scores))
