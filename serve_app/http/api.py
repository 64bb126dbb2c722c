"""The operations of finsent's own HTTP API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from finsent.inference.config import Truncate
from serve_app.config import LimitsConfig
from serve_app.dialects.tei import Tei
from serve_app.dialects.vllm import Vllm
from serve_app.http.answers import answer_body, explain_body
from serve_app.http.body import Pace, paced, read_body
from serve_app.http.endpoints import HttpCall, Route
from serve_app.http.files import read_upload, scored
from serve_app.http.requests import ExplainRequest, PredictRequest, parse
from serve_app.http.responses import json_response
from serve_app.info import Explain, ShadowReporter, describe_service
from serve_app.metrics import CONTENT_TYPE, Metrics
from serve_app.problems import Problem, too_many_files
from serve_app.sender import Sender
from serve_app.service.answer import Answer, Answers
from serve_app.service.service import Service

log = logging.getLogger("finsent.requests")

_FILE_RETRY_SECONDS = 5  # after which a client may send a file that was one too many


class Api:
    """The operations of one replica."""

    def __init__(
        self, service: Service, metrics: Metrics, explain: Explain, shadow: ShadowReporter | None
    ) -> None:
        self._service, self._metrics = service, metrics
        self._explain, self._shadow = explain, shadow
        self._tei, self._vllm = Tei(service, self.classify), Vllm(service, self.classify)
        self._files = 0  # that are being scored

    def routes(self) -> list[Route]:
        """Return the paths of all operations, including those of other servers' dialects."""
        return [
            Route("/predict", "predict", self.predict, has_body=True),
            Route("/explain", "explain", self.explain, has_body=True),
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
        return self._service.config.limits  # the current ones: they change at run time

    async def predict(self, call: HttpCall) -> Response:
        """Classify one text, a list, or text-embeddings-inference's form of both."""
        request = parse(PredictRequest, call.body)
        if request.form() == "inputs":
            assert request.inputs is not None
            return await self._tei.predict(call, request.inputs, request)
        truncate = request.truncate_policy()
        request_id = call.sender.request_id
        if request.text is not None:
            [answer] = await self.classify(call, [request.text], truncate, request.source)
            if isinstance(answer, Problem):
                raise answer
            return json_response(answer_body(answer, request.raw_scores, request_id))
        answers = await self.classify(call, request.texts or [], truncate, request.source)
        return json_response(
            {
                "predictions": [
                    answer.body()
                    if isinstance(answer, Problem)
                    else answer_body(answer, request.raw_scores, request_id)
                    for answer in answers
                ],
                "model_version": call.model_version or self._service.model.version,
                "request_id": request_id,
            }
        )

    async def classify(
        self, call: HttpCall, texts: list[Any], truncate: Truncate | None, source: str | None
    ) -> Answers:
        """Answer the texts of a request in order; one that cannot be classified gets a problem."""
        answers, timing = await self._service.answer(texts, truncate, call.sender, source)
        call.add_timing(timing)
        call.model_version = next((a.model_version for a in answers if isinstance(a, Answer)), None)
        return answers

    async def explain(self, call: HttpCall) -> Response:
        """Classify one text, and weigh its words."""
        request = parse(ExplainRequest, call.body)
        explanation = await self._explain(
            request.text, request.truncate, call.sender, request.source
        )
        call.add_timing(explanation.timing)
        call.model_version = explanation.answer.model_version
        return json_response(explain_body(explanation, call.sender.request_id))

    async def predict_file(self, call: HttpCall) -> Response:
        """Stream the rows of a CSV or text file with their answers."""
        limit = self._limits.files
        if self._files >= limit:
            raise too_many_files(limit, _FILE_RETRY_SECONDS)
        self._files += 1
        try:
            pace = self._pace(call)
            body = await read_body(paced(call.request, pace), self._limits.file_bytes)
            upload = await read_upload(body, call.request.headers, call.request.query_params)
            # 503 and 422 rather than an empty stream.
            call.model_version = self._service.model.version
            self._service.models.calibration(self._service.model, upload.source)
        except BaseException:
            self._file_done()
            raise
        pieces = scored(upload, self._service, call.sender, pace)
        return _FileResponse(pieces, upload.media_type, pace, call.sender, self._file_done)

    def _pace(self, call: HttpCall) -> Pace:
        rate, seconds = self._limits.file_bytes_per_second, self._limits.file_seconds
        until = asyncio.get_running_loop().time() + seconds
        return Pace(call.deadline, rate, seconds, until)

    def _file_done(self) -> None:
        self._files -= 1

    async def info(self, _: HttpCall) -> Response:
        """Return the model and the limits."""
        return json_response(await describe_service(self._service, self._shadow))

    async def model_card(self, _: HttpCall) -> Response:
        """Return the card of the model version: its data, figures and limits."""
        headers = {"x-content-type-options": "nosniff"}
        return Response(self._service.model.card, headers=headers, media_type="text/markdown")

    async def health(self, _: HttpCall) -> Response:
        """Return the readiness and the load."""
        self._service.check_ready()
        return json_response(
            {
                "status": "ok",
                "model_version": self._service.model.version,
                **self._service.stats(),
                "requests": self._service.admission.requests,
            }
        )

    async def live(self, _: HttpCall) -> Response:
        """Report that the process runs."""
        return json_response({"status": "ok"})

    async def metrics(self, _: HttpCall) -> Response:
        """Return the counters of this replica."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)


class _SlowReaderError(Exception):
    """A client reads its answer too slowly."""


class _FileResponse(StreamingResponse):
    """Streams the rows of a file; calls back at the end, whether or not the client read all."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        media_type: str,
        pace: Pace,
        sender: Sender,
        at_end: Callable[[], None],
    ) -> None:
        super().__init__(pieces, media_type=f"{media_type}; charset=utf-8")
        self._pace, self._sender, self._at_end = pace, sender, at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, partial(self._send, send))
        except _SlowReaderError:  # the server closes a connection whose answer is not complete
            log.warning("request %s: the client reads too slowly", self._sender.request_id)
        finally:
            self._at_end()

    async def _send(self, send: Send, message: Message) -> None:
        pace = self._pace
        size = len(message.get("body", b""))
        # After the deadline, the remaining rows report it. They get `patience` once more.
        due = min(asyncio.get_running_loop().time() + size / pace.rate, pace.until)
        try:
            async with asyncio.timeout_at(due + pace.patience):
                await send(message)
        except TimeoutError:
            raise _SlowReaderError from None
