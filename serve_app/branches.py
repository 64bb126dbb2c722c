"""Side branches of the graph: fed by the gateways, never waited for on a request's way."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from finsent.disk import find_disk_error
from serve_app.coalescer import Timing
from serve_app.incoming import Asker
from serve_app.problems import Problem
from serve_app.service import Answer, Service

log = logging.getLogger(__name__)

_SECONDS = 0.5  # items gather so long; then one call takes them all
_MOST = 4096  # items that wait; a branch that does not keep up loses the rest
_PATIENCE = 60.0  # seconds for a call; a branch may have to start first
_LAST_PATIENCE = 5.0  # seconds for the last one, as the replica ends

Item = dict[str, Any]


class Branch:
    """Items on their way to a deployment."""

    def __init__(self, name: str, send: Callable[[list[Item]], Awaitable[Any]]) -> None:
        self.sent = 0
        self.lost = 0  # there was no room, or the branch failed
        self._name, self._send = name, send
        self._waiting: list[Item] = []
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    def offer(self, items: list[Item]) -> None:
        """Take items along as far as there is room; returns at once."""
        room = max(0, _MOST - len(self._waiting))
        self._waiting += items[:room]
        self.lost += len(items) - min(room, len(items))
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Send what still waits."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LAST_PATIENCE)

    async def _run(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS):
                        await self._ending.wait()
                items, self._waiting = self._waiting, []
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await self._send(items)
                    self.sent += len(items)
                except Exception as error:  # the main path must not know
                    self.lost += len(items)
                    why = find_disk_error(error) or repr(error)
                    log.warning("%s: %d items are lost: %s", self._name, len(items), why)
        finally:
            self._task = None


def shadow_tap(service: Service, branch: Branch) -> Callable[..., None]:
    """Offers a share of the answered texts to the shadow, as far as one is named now."""
    rng = random.Random()

    def tap(
        _: Asker, texts: Sequence[Any], answers: Sequence[Answer | Problem], timing: Timing
    ) -> None:
        share = service.config.shadow_share
        if service.config.shadow is None or not timing.rows:
            return
        branch.offer(
            [
                {
                    "text": text,
                    "label": answer.prediction.label,
                    "probabilities": answer.prediction.probabilities,
                    "model_version": answer.model_version,
                    "calibration": answer.calibration,
                }
                for text, answer in zip(texts, answers, strict=True)
                if isinstance(answer, Answer) and rng.random() < share
            ]
        )

    return tap


def record_tap(service: Service, branch: Branch) -> Callable[..., None]:
    """Offers each answer to the recorder, without its text unless the config wants it."""

    def tap(
        asker: Asker, texts: Sequence[Any], answers: Sequence[Answer | Problem], _: Timing
    ) -> None:
        branch.offer(
            [
                record(asker, text, answer, service.config.log_texts)
                for text, answer in zip(texts, answers, strict=True)
                if isinstance(answer, Answer)
            ]
        )

    return tap


def record(asker: Asker, text: str, answer: Answer, with_text: bool) -> Item:
    """One answer as the prediction log has it."""
    prediction = answer.prediction
    return {
        "time": time.time(),
        "request_id": asker.request_id,
        "key": asker.key,
        "model_version": answer.model_version,
        "calibration": answer.calibration,
        "label": prediction.label,
        "score": prediction.score,
        "probabilities": prediction.probabilities,
        "abstained": prediction.abstained,
        "truncated": answer.truncated,
        "characters": len(text),
        "text": text,
        "with_text": with_text,
    }
