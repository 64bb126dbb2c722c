"""A client of the service: typed answers, and retries after the time that the service names.

    with Client("http://localhost:8000") as client:
        client.predict("Profit rose.").label
        for answer in client.stream(open("headlines.txt")):
            ...

The module needs httpx and no other part of finsent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import httpx

BATCH = 256  # texts of one request of a stream
_MAX_CHARACTERS = 250_000  # of a request: services accept 2 MB, and a character has up to 6 bytes
_RETRY_STATUSES = (429, 502, 503)  # a request may be repeated: answering it changes nothing
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.1, 10.0  # in addition to `Retry-After`
_MAX_RETRY_AFTER_SECONDS = 60.0

JsonObject: TypeAlias = dict[str, Any]  # as the service sends it


class Options(TypedDict, total=False):
    """Options of a request; docs/serving.md describes them."""

    truncate: Literal["right", "left", "error"]
    source: str
    raw_scores: bool


@dataclass(frozen=True)
class Answer:
    """The answer for one text, or the problem in its place: `code` and `detail`."""

    label: str | None
    score: float | None  # probability of the label
    probabilities: dict[str, float] = field(default_factory=dict)
    model_version: str | None = None
    abstained: bool = False
    truncated: bool = False
    code: str | None = None  # why the text could not be classified; None: it was classified
    detail: str | None = None
    polarity: float | None = None  # P(positive) - P(negative), from -1 to 1
    calibration: str | None = None  # for the request's source; None: the model's own


@dataclass(frozen=True)
class Word:
    """A word and its effect on the label of the text."""

    text: str
    start: int  # first character in the explained text
    end: int  # the character after the last one
    attribution: float  # probability that the label loses without the word; below 0: gains


class ServiceError(Exception):
    """The service refused a request, or cannot be reached."""

    def __init__(self, status: int | None, code: str, detail: str) -> None:
        """Make an error.

        Args:
            status: of HTTP; None: no answer came.
            code: for programs; the service's documentation lists all. `unreachable`: no answer.
            detail: for people.
        """
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.detail = status, code, detail


class _Attempts:
    """Decides whether and when a request is retried, for both clients.

    Waits double, with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015), so that
    clients that were refused together do not retry together.
    """

    def __init__(self, retries: int) -> None:
        self._retries_left, self._wait = retries, _FIRST_WAIT_SECONDS

    def delay(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """Return the seconds until the next attempt.

        Raises:
            ServiceError: there is no next attempt.
        """
        if isinstance(outcome, httpx.Response):
            error = _error(outcome)
            may_retry, retry_after = outcome.status_code in _RETRY_STATUSES, _retry_after(outcome)
        else:
            error = ServiceError(None, "unreachable", str(outcome) or type(outcome).__name__)
            may_retry, retry_after = not isinstance(outcome, httpx.ReadTimeout), 0.0
        if not may_retry or self._retries_left <= 0:
            raise error from None
        self._retries_left -= 1
        jittered = random.uniform(0, self._wait)
        self._wait = min(2 * self._wait, _MAX_WAIT_SECONDS)
        return retry_after + jittered


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), _MAX_RETRY_AFTER_SECONDS) if value.isdigit() else 0.0


def _error(response: httpx.Response) -> ServiceError:
    try:
        problem = response.json()
        return ServiceError(response.status_code, str(problem["code"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        text = response.text[:200]
        return ServiceError(response.status_code, f"http_{response.status_code}", text)


def _headers(key: str | None, deadline: float | None) -> dict[str, str]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    if deadline is not None:
        headers["x-request-timeout-ms"] = str(max(1, round(deadline * 1000)))
    return headers


def _answer(body: JsonObject) -> Answer:
    if "label" not in body:
        return Answer(None, None, code=str(body["code"]), detail=str(body["detail"]))
    return Answer(
        label=body["label"],
        score=body["score"],
        probabilities=body["probabilities"],
        model_version=body["model_version"],
        abstained=body["abstained"],
        truncated=body["truncated"],
        # Older services send neither of these.
        polarity=body.get("polarity"),
        calibration=body.get("calibration"),
    )


def _words(body: JsonObject) -> list[Word]:
    return [
        Word(word["text"], word["start"], word["end"], word["attribution"])
        for word in body["words"]
    ]


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and characters + len(text) > _MAX_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
        if len(batch) == size:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class Client:
    """Client for ordinary code; threads may share it."""

    def __init__(
        self,
        address: str,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        deadline: float | None = None,
    ) -> None:
        """Connect with the first request.

        Args:
            address: e.g. http://localhost:8000.
            key: API key.
            timeout: seconds of one attempt.
            retries: attempts after the first, while the service is busy or cannot be reached.
            deadline: seconds after which the service refuses a request with the code
                deadline_exceeded. None: the limit of the service.
        """
        self._retries = retries
        self._http = httpx.Client(
            base_url=address, headers=_headers(key, deadline), timeout=timeout
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def predict(self, text: str, **options: Unpack[Options]) -> Answer:
        """Classify a text.

        Args:
            options: of the request, e.g. truncate="left".

        Raises:
            ServiceError: the service refused the request, or cannot be reached.
        """
        return _answer(self._ask("POST", "/predict", {"text": text, **options}))

    def predict_all(self, texts: list[str], **options: Unpack[Options]) -> list[Answer]:
        """Classify a list in one request; a refused text has the reason in its answer."""
        body = self._ask("POST", "/predict", {"texts": texts, **options})
        return [_answer(prediction) for prediction in body["predictions"]]

    def stream(
        self, texts: Iterable[str], batch: int = BATCH, **options: Unpack[Options]
    ) -> Iterator[Answer]:
        """Classify any number of texts in order; they are read as the answers are consumed."""
        for texts_of_request in _batches(texts, batch):
            yield from self.predict_all(texts_of_request, **options)

    def explain(self, text: str, **options: Unpack[Options]) -> tuple[Answer, list[Word]]:
        """Classify a text, and weigh its words."""
        body = self._ask("POST", "/explain", {"text": text, **options})
        return _answer(body), _words(body)

    def info(self) -> JsonObject:
        """Return the model and the limits of the service."""
        return self._ask("GET", "/info", None)

    def _ask(self, method: str, path: str, content: JsonObject | None) -> JsonObject:
        attempts = _Attempts(self._retries)
        while True:
            try:
                response = self._http.request(method, path, json=content)
            except httpx.TransportError as error:
                time.sleep(attempts.delay(error))
                continue
            if response.status_code == 200:
                body: JsonObject = response.json()
                return body
            time.sleep(attempts.delay(response))


class AsyncClient:
    """Client for async code; a stream keeps several requests in flight."""

    def __init__(
        self,
        address: str,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        deadline: float | None = None,
    ) -> None:
        """See `Client`."""
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=address, headers=_headers(key, deadline), timeout=timeout
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()

    async def predict(self, text: str, **options: Unpack[Options]) -> Answer:
        """See `Client.predict`."""
        return _answer(await self._ask("POST", "/predict", {"text": text, **options}))

    async def predict_all(self, texts: list[str], **options: Unpack[Options]) -> list[Answer]:
        """See `Client.predict_all`."""
        body = await self._ask("POST", "/predict", {"texts": texts, **options})
        return [_answer(prediction) for prediction in body["predictions"]]

    async def stream(
        self,
        texts: Iterable[str],
        batch: int = BATCH,
        in_flight: int = 4,
        **options: Unpack[Options],
    ) -> AsyncIterator[Answer]:
        """Classify any number of texts, in order.

        Args:
            in_flight: requests at a time.
        """
        waiting: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            for texts_of_request in _batches(texts, batch):
                request = self.predict_all(texts_of_request, **options)
                waiting.append(asyncio.create_task(request))
                if len(waiting) >= in_flight:
                    for answer in await waiting.popleft():
                        yield answer
            while waiting:
                for answer in await waiting.popleft():
                    yield answer
        finally:
            for task in waiting:
                task.cancel()

    async def explain(self, text: str, **options: Unpack[Options]) -> tuple[Answer, list[Word]]:
        """See `Client.explain`."""
        body = await self._ask("POST", "/explain", {"text": text, **options})
        return _answer(body), _words(body)

    async def info(self) -> JsonObject:
        """See `Client.info`."""
        return await self._ask("GET", "/info", None)

    async def _ask(self, method: str, path: str, content: JsonObject | None) -> JsonObject:
        attempts = _Attempts(self._retries)
        while True:
            try:
                response = await self._http.request(method, path, json=content)
            except httpx.TransportError as error:
                await asyncio.sleep(attempts.delay(error))
                continue
            if response.status_code == 200:
                body: JsonObject = response.json()
                return body
            await asyncio.sleep(attempts.delay(response))
