"""The router of one replica: sends a share of the requests to a canary while a rollout runs.

A client's requests go to one version: the version is chosen by a hash of the client's header, or
else of the texts. A request that the canary does not answer is answered by the current version, so
no request fails because of a canary.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.references import plain_name
from finsent.rollout.outcomes import BlockBuilder, RequestOutcome
from finsent.rollout.rollout_record import RolloutRecord
from finsent.rollout.rollouts import Rollouts
from finsent.storage import StorageError
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer, Answers
from serve_app.service.coalescer import Timing
from serve_app.service.model import Model
from serve_app.service.routing import RouterCounts
from serve_app.service.service import Service

log = logging.getLogger(__name__)

_REPORT_BLOCKS = 20  # blocks that are reported at once, before `serve.watch_seconds` have passed
_SHORTEST_PAUSE = 0.2  # seconds between two reports
_MAX_BLIND_SECONDS = 60.0  # without a report, after which the canary gets no requests
_MAX_COMPARISONS = 8  # at a time; more texts are not compared
_PATIENCE_FACTOR = 5  # of the limit of slow requests, after which the current version answers
_SHORTEST_PATIENCE = 0.25  # seconds
_UNCOUNTED = ("overloaded", "not_ready")  # problems of the replica, not of a version


@dataclass(frozen=True)
class _Canary:
    """A rollout that runs, with its loaded version."""

    record: RolloutRecord
    model: Model
    blocks: BlockBuilder

    def takes(self, unit: str) -> bool:
        """Return whether the canary gets the requests of a client or of texts.

        A unit that the canary gets at one stage is the canary's at all later stages.
        """
        digest = hashlib.sha256(f"{self.record.id}:{unit}".encode(errors="replace")).digest()
        return int.from_bytes(digest[:8]) < self.record.share * 2**64


class CanaryRouter:
    """Routes the requests of one replica. All methods belong to one event loop."""

    def __init__(self, service: Service, rollouts: Rollouts) -> None:
        self.counts = RouterCounts()
        self.record: RolloutRecord | None = None  # the alias's latest rollout
        self._service, self._rollouts = service, rollouts
        self._canary: _Canary | None = None
        self._has_blocks = asyncio.Event()
        self._followed = time.monotonic()  # time of the last report
        self._comparisons: set[asyncio.Task[None]] = set()

    @property
    def is_active(self) -> bool:
        """See `RequestRouter.is_active`."""
        return self._canary is not None

    # --- requests ---

    async def classify(
        self, texts: Sequence[str], truncate: Truncate | None, source: str | None, sender: Sender
    ) -> tuple[Answers, Timing]:
        """See `RequestRouter.classify`."""
        canary = self._canary
        request = _Request(self._service, texts, truncate, source)
        if canary is None:
            return await request.answer(self._service.model)
        if canary.takes(sender.client or "\0".join(texts)):
            return await self._by_canary(canary, request, sender)
        self.counts.current += 1
        return await self._by_current(canary, request)

    async def _by_current(self, canary: _Canary, request: _Request) -> tuple[Answers, Timing]:
        started = time.perf_counter()
        try:
            answers, timing = await request.answer(self._service.model)
        except Exception as error:
            if not (isinstance(error, Problem) and error.code in _UNCOUNTED):
                canary.blocks.add_control(RequestOutcome(True, None, None))
            raise
        canary.blocks.add_control(_outcome(answers, timing, time.perf_counter() - started))
        return answers, timing

    async def _by_canary(
        self, canary: _Canary, request: _Request, sender: Sender
    ) -> tuple[Answers, Timing]:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience(canary, sender)):
                answers, timing = await request.answer(canary.model)
            _check_finite(answers)
        except Exception as error:
            is_counted = not (isinstance(error, Problem) and error.code in _UNCOUNTED)
            return await self._fall_back(canary, request, error if is_counted else None)
        if any(isinstance(answer, Problem) for answer in answers):
            return await self._without_problems(canary, request, answers, timing)
        self._add(canary, _outcome(answers, timing, time.perf_counter() - started))
        self.counts.canary += 1
        self._compare(canary, request, answers)
        return answers, timing

    async def _fall_back(
        self, canary: _Canary, request: _Request, error: Exception | None
    ) -> tuple[Answers, Timing]:
        """Answer by the current version, and count an error of the canary."""
        self.counts.fallback += 1
        if error is not None:
            self._add(canary, RequestOutcome(True, None, None))
            log.warning("the canary %s did not answer: %r", canary.model.version, error)
        return await request.answer(self._service.model)

    async def _without_problems(
        self, canary: _Canary, request: _Request, answers: Answers, timing: Timing
    ) -> tuple[Answers, Timing]:
        """Return answers to texts of which the canary refused some.

        Texts that the current version answers make the request an error of the canary.
        """
        current, current_timing = await request.answer(self._service.model)
        is_error = any(
            isinstance(answer, Problem) and isinstance(other, Answer)
            for answer, other in zip(answers, current, strict=True)
        )
        self._add(canary, RequestOutcome(is_error, None, None))
        if is_error:
            self.counts.fallback += 1
            return current, current_timing
        self.counts.canary += 1
        return answers, timing

    def _patience(self, canary: _Canary, sender: Sender) -> float:
        """Return the seconds that the canary gets, which leave time for the current version."""
        longest = (sender.seconds or self._service.config.limits.timeout_ms / 1000) / 2
        slow = canary.blocks.slow_seconds
        if slow is None:
            return longest
        return min(longest, max(_SHORTEST_PATIENCE, _PATIENCE_FACTOR * slow))

    def _add(self, canary: _Canary, outcome: RequestOutcome) -> None:
        canary.blocks.add_canary(outcome)
        if canary.blocks.waiting >= _REPORT_BLOCKS:
            self._has_blocks.set()

    # --- disagreement ---

    def _compare(self, canary: _Canary, request: _Request, answers: Answers) -> None:
        """Let the current version answer a text, too, in the background."""
        record = canary.record
        chance = record.rules.compare_share / record.share if record.share else 0.0
        if len(self._comparisons) >= _MAX_COMPARISONS or random.random() >= chance:
            return
        task = asyncio.get_running_loop().create_task(
            self._count_comparison(canary, request.first(), answers[0])
        )
        self._comparisons.add(task)
        task.add_done_callback(self._comparisons.discard)

    async def _count_comparison(
        self, canary: _Canary, request: _Request, answer: Answer | Problem
    ) -> None:
        try:
            [other], _ = await request.answer(self._service.model)
        except Problem:  # overloaded: requests of clients come first
            return
        except Exception as error:
            log.warning("the current version did not answer a comparison: %r", error)
            return
        if isinstance(answer, Answer) and isinstance(other, Answer):
            is_other = answer.prediction.label != other.prediction.label
            canary.blocks.add_comparison(is_other_label=is_other)

    # --- the rollout ---

    async def watch(self) -> None:
        """See `RequestRouter.watch`; return at once if `serve.watch_seconds` is 0."""
        if not self._service.config.watch_seconds:
            return
        while True:
            try:
                await self.follow()
                self._followed = time.monotonic()
            except Exception:  # e.g. the storage, which may be back at the next attempt
                log.exception("cannot follow the rollout")
                if time.monotonic() - self._followed > _MAX_BLIND_SECONDS:
                    self._canary = None  # until the storage answers: outcomes would not count
            await asyncio.sleep(_SHORTEST_PAUSE)
            try:
                async with asyncio.timeout(self._service.config.watch_seconds):
                    await self._has_blocks.wait()
            except TimeoutError:
                continue

    async def follow(self) -> None:
        """Report the outcomes so far, and use what the rollout has decided.

        Raises:
            InputError: the rollout's record is damaged.
        """
        self._has_blocks.clear()
        self.record = await self._exchange()
        if self.record is not None and self._is_followed(self.record):
            await self._use(self.record)
        else:
            await self._end(self.record)

    async def close(self) -> None:
        """See `RequestRouter.close`."""
        if self._canary is not None:
            await self._exchange()

    async def _exchange(self) -> RolloutRecord | None:
        """Report the outcomes so far, and return the followed alias's latest rollout."""
        rollouts, canary = self._rollouts, self._canary
        if canary is None:
            alias = plain_name(self._service.models.reference)
            record = await asyncio.to_thread(rollouts.get, alias)
        else:
            own, outcomes = canary.record, canary.blocks.take()
            record = await asyncio.to_thread(rollouts.report, own.alias, own.id, outcomes)
        return None if record is None else await asyncio.to_thread(rollouts.settle, record)

    def _is_followed(self, record: RolloutRecord) -> bool:
        """Return whether this replica takes part in a rollout."""
        models = self._service.models
        is_alias = record.alias == plain_name(models.reference)
        return record.status == "running" and is_alias and models.model.version == record.champion

    async def _use(self, record: RolloutRecord) -> None:
        """Send the rollout's share of the requests to its candidate."""
        canary = self._canary
        try:
            model = await self._service.models.load_standby(record.candidate)
        except (StorageError, DiskError):  # which may be back at the next attempt
            raise
        except InputError as error:
            self._canary = None
            reason = f"the version cannot be loaded: {error}"
            self.record = await asyncio.to_thread(
                self._rollouts.end, record, "roll back", "rolled back", reason
            )
            return
        is_same = canary is not None and canary.record.id == record.id
        blocks = canary.blocks if is_same and canary else BlockBuilder(record.rules.slow_factor)
        self._canary = _Canary(record, model, blocks)

    async def _end(self, record: RolloutRecord | None) -> None:
        """Send all requests to the followed version, and release the other version."""
        models = self._service.models
        if self._canary is not None and record is not None and record.status == "promoted":
            await models.follow()  # the loaded version of the canary takes over
        self._canary = None
        models.release_standby()


@dataclass(frozen=True)
class _Request:
    """The texts of a request, and how they are answered."""

    service: Service
    texts: Sequence[str]
    truncate: Truncate | None
    source: str | None

    def first(self) -> _Request:
        """Return a request of the first text."""
        return _Request(self.service, self.texts[:1], self.truncate, self.source)

    async def answer(self, model: Model) -> tuple[Answers, Timing]:
        """Return the answers of a version, by its calibration for the source.

        Raises:
            Problem: the replica is overloaded.
        """
        calibration = self.service.models.calibration(model, self.source)
        return await self.service.classify(self.texts, self.truncate, calibration, model)


def _check_finite(answers: Answers) -> None:
    for answer in answers:
        if isinstance(answer, Answer) and not math.isfinite(answer.prediction.score):
            raise ValueError(f"score={answer.prediction.score}: not a number")


def _outcome(answers: Answers, timing: Timing, seconds: float) -> RequestOutcome:
    """Return the outcome of an answered request; answers from the cache have no time."""
    is_abstained = any(
        isinstance(answer, Answer) and answer.prediction.abstained for answer in answers
    )
    return RequestOutcome(False, seconds if timing.rows else None, is_abstained)
