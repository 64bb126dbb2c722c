"""The operations of the gRPC API, as `proto/sentiment.proto` declares them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ParsedMessage

from serve_app.auth import Keys
from serve_app.grpc_server.messages import list_item, prediction, truncate_policy, word
from serve_app.info import Explain, ShadowReporter, describe_service
from serve_app.metrics import Metrics
from serve_app.pipeline import Call, Operation, Pipeline
from serve_app.problems import Problem, body_too_large
from serve_app.proto import sentiment_pb2 as pb
from serve_app.service.answer import Answer
from serve_app.service.service import Service

T = TypeVar("T")
Request = TypeVar("Request", bound=ParsedMessage)
# Bytes from `serve_app.grpc_server.add_to_server`; parsed where a config names the generated
# function instead.
Message: TypeAlias = bytes | ParsedMessage

_STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself refuses large messages
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PREDICT = Operation("grpc_predict", has_body=True)
_PREDICT_LIST = Operation("grpc_predict_list", has_body=True)
_EXPLAIN = Operation("grpc_explain", has_body=True)
_INFO = Operation("grpc_info")
_HEALTH = Operation("grpc_health", role=None)


class Context(Protocol):
    """The used part of Serve's `RayServegRPCContext`."""

    def invocation_metadata(self) -> Iterable[tuple[str, Any]]:
        """Return pairs of names and values."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status of the response."""

    def set_details(self, details: str) -> None:
        """Set the status message of the response."""


class RpcCall(Call[T], Generic[Request, T]):
    """One gRPC request on its way through the pipeline."""

    __slots__ = ("_context", "_limit", "_message", "_request_type", "_work")

    def __init__(
        self,
        operation: Operation,
        request_type: type[Request],
        work: Callable[[Request, RpcCall[Request, T]], Awaitable[T]],
        message: Message,
        context: Context,
        limit: int,
    ) -> None:
        """Make a call.

        Args:
            work: runs the operation.
            limit: bytes of the message.
        """
        metadata = {key.lower(): str(value) for key, value in context.invocation_metadata()}
        super().__init__(operation, metadata)
        self._request_type, self._work = request_type, work
        self._message, self._context, self._limit = message, context, limit

    def body_size(self) -> int:
        """Return the size of the message in bytes."""
        if isinstance(self._message, bytes):
            return len(self._message)
        return int(self._message.ByteSize())

    async def respond(self) -> T:
        """Parse the message and run the operation."""
        response = await self._work(self._parsed(), self)
        self.status = 200
        return response

    def refuse(self, problem: Problem) -> T:
        """Set the status of the response, and raise the problem for Serve."""
        self.status = problem.status
        self._context.set_code(_STATUS_CODES[problem.status])
        self._context.set_details(f"{problem.code}: {problem.detail}")
        raise problem from None

    def _parsed(self) -> Request:
        if self.body_size() > self._limit:
            raise body_too_large("message", self._limit)
        if isinstance(self._message, self._request_type):
            return self._message
        try:
            request: Request = self._request_type.FromString(self._message)
        except DecodeError:
            name = self._request_type.DESCRIPTOR.full_name
            raise Problem("invalid_request", f"the message is not a {name}.") from None
        return request


class Rpc:
    """The operations of one replica."""

    def __init__(
        self,
        service: Service,
        keys: Keys,
        metrics: Metrics,
        explain: Explain,
        shadow: ShadowReporter | None = None,
    ) -> None:
        self._service, self._explain, self._shadow = service, explain, shadow
        self._pipeline = Pipeline(service, keys, metrics)

    async def predict(self, message: Message, context: Context) -> pb.PredictResponse:
        """Classify one text."""
        return await self._run(_PREDICT, pb.PredictRequest, self._predict, message, context)

    async def predict_list(self, message: Message, context: Context) -> pb.PredictListResponse:
        """Classify a list of texts; one that cannot be classified gets a problem in its place."""
        work, request_type = self._predict_list, pb.PredictListRequest
        return await self._run(_PREDICT_LIST, request_type, work, message, context)

    async def explain(self, message: Message, context: Context) -> pb.ExplainResponse:
        """Classify one text, and weigh its words."""
        return await self._run(_EXPLAIN, pb.ExplainRequest, self._explain_text, message, context)

    async def info(self, message: Message, context: Context) -> pb.InfoResponse:
        """Return the model and the limits."""
        return await self._run(_INFO, pb.InfoRequest, self._info, message, context)

    async def health(self, message: Message, context: Context) -> pb.HealthResponse:
        """Return the readiness."""
        return await self._run(_HEALTH, pb.HealthRequest, self._health, message, context)

    async def _run(
        self,
        operation: Operation,
        request_type: type[Request],
        work: Callable[[Request, RpcCall[Request, T]], Awaitable[T]],
        message: Message,
        context: Context,
    ) -> T:
        limit = self._service.config.limits.body_bytes
        call = RpcCall(operation, request_type, work, message, context, limit)
        return await self._pipeline.run(call)

    async def _predict(
        self, request: pb.PredictRequest, call: RpcCall[Any, Any]
    ) -> pb.PredictResponse:
        [answer], call.timing = await self._service.answer(
            [request.text],
            truncate_policy(request.truncate),
            call.sender,
            request.source or None,
        )
        if isinstance(answer, Problem):
            raise answer
        call.model_version = answer.model_version
        return pb.PredictResponse(
            prediction=prediction(answer, request.raw_scores), request_id=call.sender.request_id
        )

    async def _predict_list(
        self, request: pb.PredictListRequest, call: RpcCall[Any, Any]
    ) -> pb.PredictListResponse:
        answers, call.timing = await self._service.answer(
            list(request.texts),
            truncate_policy(request.truncate),
            call.sender,
            request.source or None,
        )
        call.model_version = next((a.model_version for a in answers if isinstance(a, Answer)), None)
        return pb.PredictListResponse(
            items=[list_item(answer, request.raw_scores) for answer in answers],
            request_id=call.sender.request_id,
        )

    async def _explain_text(
        self, request: pb.ExplainRequest, call: RpcCall[Any, Any]
    ) -> pb.ExplainResponse:
        explanation = await self._explain(
            request.text, truncate_policy(request.truncate), call.sender, request.source or None
        )
        call.timing = explanation.timing
        call.model_version = explanation.answer.model_version
        return pb.ExplainResponse(
            prediction=prediction(explanation.answer, False),
            text=explanation.text,
            request_id=call.sender.request_id,
            words=[word(weight) for weight in explanation.words],
        )

    async def _info(self, _: pb.InfoRequest, __: RpcCall[Any, Any]) -> pb.InfoResponse:
        info = await describe_service(self._service, self._shadow)
        return pb.InfoResponse(
            model_version=info["model_version"], json=orjson.dumps(info).decode()
        )

    async def _health(self, _: pb.HealthRequest, __: RpcCall[Any, Any]) -> pb.HealthResponse:
        self._service.check_ready()
        return pb.HealthResponse(status="ok", model_version=self._service.model.version)
