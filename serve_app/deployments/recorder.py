"""The prediction log: gateways offer their answers, and one process stores them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finsent.errors import InputError
from finsent.prediction_log import LoggedPrediction, LogWriter
from finsent.storage import Location
from serve_app.deployments.branches import Branch
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer, AnswerListener
from serve_app.service.coalescer import Timing
from serve_app.service.service import Service

log = logging.getLogger(__name__)

MAX_ROWS = 100_000  # that wait in memory for a store that does not answer


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer on its way to the prediction log."""

    id: str  # of the text
    time: float  # Unix time
    sender: Sender
    answer: Answer
    timing: Timing
    backend: str | None  # None: the model version has changed since the answer
    characters: int
    text: str | None  # None: the log gets no texts

    def as_row(self) -> LoggedPrediction:
        """Return the row of the log."""
        answer, prediction = self.answer, self.answer.prediction
        return LoggedPrediction(
            id=self.id,
            time=datetime.fromtimestamp(self.time, UTC),
            request_id=self.sender.request_id,
            key=self.sender.key,
            source=None,
            text=self.text,
            text_hmac=None,
            characters=self.characters,
            tokens=answer.tokens,
            truncated=answer.truncated,
            label=prediction.label,
            confidence=float(prediction.score),
            abstained=bool(prediction.abstained),
            probabilities={name: float(value) for name, value in prediction.probabilities.items()},
            model_version=answer.model_version,
            calibration=answer.calibration,
            backend=self.backend,
            encoded_seconds=self.timing.encoded,
            queued_seconds=self.timing.queued,
            computed_seconds=self.timing.computed,
        )


def record_listener(service: Service, branch: Branch[RecordedAnswer]) -> AnswerListener:
    """Return a listener that offers each answer to the recorder."""

    def listener(
        sender: Sender, texts: Sequence[Any], answers: Sequence[Answer | Problem], timing: Timing
    ) -> None:
        now, keeps_text, model = time.time(), service.config.log_texts, service.model
        branch.offer(
            [
                RecordedAnswer(
                    uuid.uuid4().hex,
                    now,
                    sender,
                    answer,
                    timing,
                    model.engine.backend.name if model.version == answer.model_version else None,
                    len(text),
                    text if keeps_text else None,
                )
                for text, answer in zip(texts, answers, strict=True)
                if isinstance(answer, Answer)
            ]
        )

    return listener


class Recorder:
    """Stores answers in the prediction log, at most once per interval."""

    def __init__(self, root: Location, flush_seconds: float) -> None:
        self._writer = LogWriter(root, MAX_ROWS)
        self._flush_seconds = flush_seconds
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def record(self, items: Sequence[RecordedAnswer]) -> int:
        """Accept answers, and return how many were accepted."""
        accepted = self._writer.add([item.as_row() for item in items])
        if accepted < len(items):
            log.warning(
                "prediction log: %d answers are dropped, %d so far: %d wait for the store",
                len(items) - accepted,
                self._writer.dropped,
                self._writer.waiting,
            )
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return accepted

    async def close(self) -> None:
        """Store the answers that still wait."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._writer.waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._flush_seconds):
                        await self._ending.wait()
                try:
                    await asyncio.to_thread(self._writer.flush)
                except InputError as error:  # the next flush repeats the segment
                    log.warning("prediction log: %s", error)
                    if self._ending.is_set():
                        break
        finally:
            self._task = None
