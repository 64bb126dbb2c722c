"""The classifiers, as a gateway uses them."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from itertools import count
from typing import Any, TypeVar

import grpc
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from finsent.errors import InputError
from finsent.inference.backends import Logits, Run
from finsent.inference.batching import Ids, Row
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.service.model import Model
from serve_app.service.streams import Computed, Pending
from serve_app.split.loads import LOADS
from serve_app.split.messages import (
    ComputedBatch,
    EngineInfo,
    MicroBatch,
    NotLoaded,
    RefusedLoad,
    pack,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

# A classifier died, or its node did not answer. Computing a micro-batch again changes nothing.
_LOST = (RayActorError, DeploymentUnavailableError, grpc.aio.AioRpcError)
_MAX_LOSSES = 5  # of one call; HAProxy retries a request as often
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds before another attempt
_GATEWAY = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
_numbers = count()


class Classifiers:
    """Loads versions into classifiers, and computes micro-batches there."""

    def __init__(self, handle: DeploymentHandle[Any], timeout: Callable[[], float]) -> None:
        """Call no classifier yet.

        Args:
            timeout: returns the longest deadline of a request in seconds.
        """
        self._handle, self._timeout = handle, timeout

    async def load(self, registry: Registry, reference: str, config: EngineConfig) -> Model:
        """Load a version into all classifiers, and its tokenizer into this process.

        Raises:
            InputError: as of `serve_app.service.model.Model.load`, in a classifier or here.
        """
        version = await asyncio.to_thread(registry.get, reference)
        info = await self._loaded(version.version)
        engine = await asyncio.to_thread(Engine, version.path, config, _RemoteBackend(info))
        return Model.of(version, engine, RemoteStreams(self, version.version, info))

    async def _loaded(self, version: str) -> EngineInfo:
        """Load a version into all classifiers; one that dies meanwhile is skipped.

        Raises:
            InputError: a classifier refuses the version.
        """
        # Waits for a classifier; a broadcast would reach none while none runs.
        answers: list[Any] = [await _retried(lambda: self._handle.load.remote(version))]
        with suppress(*_LOST):
            broadcast = self._handle.broadcast("load", version)
            answers += await broadcast.results_async(return_exceptions=True)
        refusals = [answer.reason for answer in answers if isinstance(answer, RefusedLoad)]
        if refusals:
            raise InputError(refusals[0])
        return next(answer for answer in answers if isinstance(answer, EngineInfo))

    async def compute(self, version: str, rows: Sequence[Row], waiting_tokens: float) -> Computed:
        """Return the logits of a micro-batch, and the seconds that the model took.

        Args:
            waiting_tokens: at this gateway, in addition to the micro-batch.

        Raises:
            TimeoutError: no classifier answered within the longest deadline of a request.
        """
        share = waiting_tokens / LOADS.count
        batch = MicroBatch(next(_numbers), _GATEWAY, version, *pack(rows), share)
        LOADS.begin(batch.number, batch.tokens)
        try:
            async with asyncio.timeout(self._timeout()):
                answer = await self._answer(batch)
        finally:
            LOADS.end(batch.number)
        LOADS.report(answer.classifier, answer.other_tokens)
        return answer.logits, answer.seconds

    async def _answer(self, batch: MicroBatch) -> ComputedBatch:
        pause = _FIRST_PAUSE
        while True:
            answer: ComputedBatch | NotLoaded = await _retried(
                lambda: self._handle.compute.remote(batch)
            )
            if isinstance(answer, ComputedBatch):
                return answer
            LOADS.lacks(answer.classifier, batch.version)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of a call; call again if the classifier dies.

    Raises:
        RayActorError: all attempts failed; also the other errors of `_LOST`.
    """
    pause = _FIRST_PAUSE
    for _ in range(_MAX_LOSSES):
        try:
            return await call()
        except _LOST as error:
            log.warning("a classifier failed, so another one is called: %r", error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return await call()


class RemoteStreams:
    """The streams of all classifiers, for one version."""

    def __init__(self, classifiers: Classifiers, version: str, info: EngineInfo) -> None:
        self._classifiers, self._version, self._info = classifiers, version, info

    @property
    def count(self) -> int:
        """See `Streams.count`."""
        return self._info.streams * LOADS.count

    @property
    def is_ready(self) -> bool:
        """See `Streams.is_ready`."""
        return LOADS.is_any_running

    @property
    def other_tokens(self) -> float:
        """See `Streams.other_tokens`."""
        return LOADS.other_tokens

    def submit(
        self,
        rows: Sequence[Row],
        pending: Pending,  # noqa: ARG002 # the rows are sent at once: no client has left
        waiting_tokens: int,
    ) -> asyncio.Future[Computed]:
        """See `Streams.submit`."""
        compute = self._classifiers.compute(self._version, rows, waiting_tokens)
        # In the context of a request, Ray would cancel the call when that request's client leaves.
        # The micro-batch has rows of other requests, too.
        return asyncio.get_running_loop().create_task(compute, context=Context())

    def close(self) -> None:
        """Do nothing: the classifiers release versions that no gateway uses."""


class _RemoteBackend:
    """The backend of the classifiers, for an engine that only tokenizes and calibrates."""

    def __init__(self, info: EngineInfo) -> None:
        self.name, self.device, self.streams = info.backend, info.device, info.streams
        self.max_rows, self.padded_shape = info.max_rows, info.padded_shape

    def runs(self) -> list[Run]:
        """Return no function that computes."""
        return [self._refuse]

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:  # noqa: ARG002
        """Return no shape: the classifiers warm up."""
        return []

    def _refuse(self, ids: Ids, mask: Ids) -> Logits:
        raise NotImplementedError("classifiers compute, not the gateway")
