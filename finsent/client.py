"""A client of the service: typed answers, retries that wait as long as the service asks.

    with Client("http://localhost:8000") as client:
        client.predict("Profit rose.").label
        for answer in client.stream(open("headlines.txt")):
            ...

Needs httpx, and nothing else of finsent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

BATCH = 256  # texts of one request of a stream
_CHARACTERS = 250_000  # of them, about: services take bodies of 2 MB, and a sign may need 6 bytes
_AGAIN = (429, 502, 503)  # classifying again does no harm
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0  # seconds, where the service does not say


@dataclass(frozen=True)
class Answer:
    """The answer for one text; `code` and `detail` where there is none."""

    label: str | None
    score: float | None  # probability of the label
    probabilities: dict[str, float] = field(default_factory=dict)
    model_version: str | None = None
    abstained: bool = False
    truncated: bool = False
    code: str | None = None  # why this text could not be classified; None: it was
    detail: str | None = None
    polarity: float | None = None  # P(positive) - P(negative), from -1 to 1
    calibration: str | None = None  # for the request's source; None: the model's own


@dataclass(frozen=True)
class Word:
    """What a word does to a text's label: the probability that it loses without the word."""

    text: str
    start: int
    end: int
    attribution: float


class ServiceError(Exception):
    """The service refused a request, or could not be reached."""

    def __init__(self, status: int | None, code: str, detail: str) -> None:
        """Make one.

        Args:
            status: HTTP's; None: no answer came.
            code: stable, see the service's documentation; `unreachable` where no answer came.
            detail: for people.
        """
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.detail = status, code, detail


class _Attempts:
    """How often and when to ask again, the same for both clients.

    Waits double, with full jitter below (Brooker, "Exponential Backoff And Jitter", AWS 2015), so
    that clients that were refused together do not come back together.
    """

    def __init__(self, retries: int) -> None:
        self._left, self._wait = retries, _FIRST_WAIT

    def delay(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """Seconds until the next attempt.

        Raises:
            ServiceError: there is none.
        """
        if isinstance(outcome, httpx.Response):
            error = _error(outcome)
            again, asked = outcome.status_code in _AGAIN, _retry_after(outcome)
        else:
            error = ServiceError(None, "unreachable", str(outcome) or type(outcome).__name__)
            again, asked = not isinstance(outcome, httpx.ReadTimeout), 0.0
        if not again or self._left <= 0:
            raise error from None
        self._left -= 1
        jittered = random.uniform(0, self._wait)
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        return asked + jittered


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else 0.0


def _error(response: httpx.Response) -> ServiceError:
    try:
        found = response.json()
        return ServiceError(response.status_code, str(found["code"]), str(found["detail"]))
    except (ValueError, KeyError, TypeError):
        text = response.text[:200]
        return ServiceError(response.status_code, f"http_{response.status_code}", text)


def _headers(key: str | None, deadline: float | None) -> dict[str, str]:
    found = {} if key is None else {"authorization": f"Bearer {key}"}
    if deadline is not None:
        found["x-request-timeout-ms"] = str(max(1, round(deadline * 1000)))
    return found


def _answer(found: dict[str, Any]) -> Answer:
    if "label" not in found:
        return Answer(None, None, code=str(found["code"]), detail=str(found["detail"]))
    kept = ("label", "score", "probabilities", "model_version", "abstained", "truncated")
    # Services older than this client give neither polarity nor calibration.
    return Answer(
        **{name: found[name] for name in kept},
        polarity=found.get("polarity"),
        calibration=found.get("calibration"),
    )


def _words(found: dict[str, Any]) -> list[Word]:
    return [
        Word(word["text"], word["start"], word["end"], word["attribution"])
        for word in found["words"]
    ]


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and characters + len(text) > _CHARACTERS:
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
    """Asks from ordinary code; may be shared by threads."""

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
            retries: attempts beyond the first, where the service is busy or can't be reached.
            deadline: seconds that the service may take for a request, at most; it drops what is
                later, with the code deadline_exceeded. None: its own limit.
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

    def predict(self, text: str, **options: Any) -> Answer:
        """Classify a text.

        Args:
            options: of the API, e.g. truncate="left".

        Raises:
            ServiceError: the service refused it, or can't be reached.
        """
        return _answer(self._ask("POST", "/predict", {"text": text, **options}))

    def predict_all(self, texts: list[str], **options: Any) -> list[Answer]:
        """Classify a list in one request; a text that can't be classified says so in its answer."""
        found = self._ask("POST", "/predict", {"texts": texts, **options})
        return [_answer(one) for one in found["predictions"]]

    def stream(self, texts: Iterable[str], batch: int = BATCH, **options: Any) -> Iterator[Answer]:
        """Classify any number of texts, in order, reading them as the answers are taken."""
        for some in _batches(texts, batch):
            yield from self.predict_all(some, **options)

    def explain(self, text: str, **options: Any) -> tuple[Answer, list[Word]]:
        """Classify a text, and say what its words do."""
        found = self._ask("POST", "/explain", {"text": text, **options})
        return _answer(found), _words(found)

    def info(self) -> dict[str, Any]:
        """The model that answers, and the limits."""
        return self._ask("GET", "/info", None)

    def _ask(self, method: str, path: str, body: Any) -> dict[str, Any]:
        attempts = _Attempts(self._retries)
        while True:
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TransportError as error:
                time.sleep(attempts.delay(error))
                continue
            if response.status_code == 200:
                found: dict[str, Any] = response.json()
                return found
            time.sleep(attempts.delay(response))


class AsyncClient:
    """Asks from async code; a stream keeps several requests in flight."""

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

    async def predict(self, text: str, **options: Any) -> Answer:
        """See `Client.predict`."""
        return _answer(await self._ask("POST", "/predict", {"text": text, **options}))

    async def predict_all(self, texts: list[str], **options: Any) -> list[Answer]:
        """See `Client.predict_all`."""
        found = await self._ask("POST", "/predict", {"texts": texts, **options})
        return [_answer(one) for one in found["predictions"]]

    async def stream(
        self, texts: Iterable[str], batch: int = BATCH, in_flight: int = 4, **options: Any
    ) -> AsyncIterator[Answer]:
        """Classify any number of texts, in order.

        Args:
            in_flight: requests at a time.
        """
        waiting: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            for some in _batches(texts, batch):
                waiting.append(asyncio.create_task(self.predict_all(some, **options)))
                if len(waiting) >= in_flight:
                    for answer in await waiting.popleft():
                        yield answer
            while waiting:
                for answer in await waiting.popleft():
                    yield answer
        finally:
            for task in waiting:
                task.cancel()

    async def explain(self, text: str, **options: Any) -> tuple[Answer, list[Word]]:
        """See `Client.explain`."""
        found = await self._ask("POST", "/explain", {"text": text, **options})
        return _answer(found), _words(found)

    async def info(self) -> dict[str, Any]:
        """See `Client.info`."""
        return await self._ask("GET", "/info", None)

    async def _ask(self, method: str, path: str, body: Any) -> dict[str, Any]:
        attempts = _Attempts(self._retries)
        while True:
            try:
                response = await self._http.request(method, path, json=body)
            except httpx.TransportError as error:
                await asyncio.sleep(attempts.delay(error))
                continue
            if response.status_code == 200:
                found: dict[str, Any] = response.json()
                return found
            await asyncio.sleep(attempts.delay(response))
