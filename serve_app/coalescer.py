"""Greedy micro-batches: the moment a stream is free it takes of what waits.

Nothing waits for a batch to fill. While the streams compute, requests gather; the next free stream
takes rows of about one length, the longest-waiting request's first. While full batches wait, one
more is taken for each stream, so that no stream waits for this loop. Requests take turns, so that a
long list does not hold up a single text. Runs on one event loop; only the model runs elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import mul

import numpy as np

from finsent.inference.backends import Logits
from finsent.labels import LABELS
from serve_app.packing import best_run

_RATE_SHARE = 0.1  # of a new measurement in the running rate
_USUAL_ROWS = 32  # of a micro-batch, where only the token budget limits them
_LOOK = 8  # full micro-batches' worth of rows that one is chosen from


@dataclass(slots=True)
class Timing:
    """How a request fared."""

    encoded: float = 0.0  # seconds until its texts were token ids
    queued: float = 0.0  # seconds until the last of its rows was taken
    computed: float = 0.0  # seconds of the longest of its micro-batches
    rows: int = 0  # of the largest of its micro-batches, other requests' included
    arrived: float = 0.0  # Unix time from which it waited


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch that was computed."""

    rows: int
    tokens: int  # without padding
    longest: int  # tokens of its longest row
    seconds: float


@dataclass(slots=True, eq=False)
class _Job:
    rows: Sequence[list[int]]
    logits: Logits
    done: asyncio.Future[None]
    arrived: float
    left: int  # rows without an answer
    next: int = 0  # first row that may not have been taken
    taken: list[bool] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)

    def all_taken(self) -> bool:
        while self.next < len(self.rows) and self.taken[self.next]:
            self.next += 1
        return self.next == len(self.rows)


class Coalescer:
    """Rows of many requests through the streams of one engine."""

    def __init__(
        self,
        compute: Callable[[Sequence[Sequence[int]]], Logits],
        streams: int,
        token_budget: int,
        most_rows: int | None,
        padded: Callable[[int, int], int] = mul,
    ) -> None:
        """Make one; it starts to work with the first request.

        Args:
            compute: logits of a micro-batch; called in a thread, by `streams` at a time.
            token_budget: padded tokens of a micro-batch.
            most_rows: of a micro-batch.
            padded: tokens that are computed for so many rows with so long a longest one.
        """
        self._compute = compute
        self._streams, self.budget = streams, token_budget
        self._most_rows = most_rows or token_budget
        self._padded = padded
        self._look = _LOOK * min(self._most_rows, _USUAL_ROWS)
        self._pool = ThreadPoolExecutor(streams, "stream")
        self._free = streams  # below 0: batches that are taken, and wait for a stream
        self._turns: deque[_Job] = deque()
        self.waiting_rows = 0
        self.waiting_tokens = 0
        self.running_tokens = 0
        self.observer: Callable[[Batch], None] | None = None
        self.rate = 0.0  # tokens/s of all streams together, as measured lately; 0: not yet

    @property
    def drain_seconds(self) -> float:
        """How long what is here will take, by the rate measured."""
        return (self.waiting_tokens + self.running_tokens) / self.rate if self.rate else 0.0

    async def run(self, rows: Sequence[list[int]]) -> tuple[Logits, Timing]:
        """Logits of token ids, shape (rows, labels), in the order given.

        When the caller is cancelled, rows that no stream has taken are dropped.
        """
        if not rows:  # no batch would ever answer them
            return np.zeros((0, len(LABELS)), np.float32), Timing()
        loop = asyncio.get_running_loop()
        logits = np.zeros((len(rows), len(LABELS)), np.float32)
        job = _Job(
            rows,
            logits,
            loop.create_future(),
            time.perf_counter(),
            len(rows),
            taken=[False] * len(rows),
            timing=Timing(arrived=time.time()),
        )
        for row in rows:
            self.waiting_tokens += len(row)
        self.waiting_rows += len(rows)
        self._turns.append(job)
        self._start(loop)
        try:
            await job.done
        except asyncio.CancelledError:
            self._drop(job)
            raise
        return logits, job.timing

    def close(self) -> None:
        """End the threads when they have finished what they compute."""
        self._pool.shutdown(wait=False)

    # --- taking ---

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self.waiting_rows and (self._free > 0 or self._ahead()):
            batch = self._take()
            self._free -= 1
            now = time.perf_counter()
            for job, _ in batch:
                job.timing.queued = now - job.arrived
            tokens = sum(len(job.rows[i]) for job, i in batch)
            self.running_tokens += tokens
            future = loop.run_in_executor(self._pool, self._work, batch)
            future.add_done_callback(partial(self._finish, loop, batch, tokens))
        if not self.waiting_rows:  # what is left in them was taken
            self._turns.clear()

    def _ahead(self) -> bool:
        """Whether a full batch may be taken before a stream is free: one for each stream."""
        return -self._free < self._streams and self.waiting_rows >= 2 * self._most_rows

    def _work(self, batch: list[tuple[_Job, int]]) -> tuple[Logits, float]:
        """A stream's part, in its thread: logits of a batch, and the seconds they took."""
        started = time.perf_counter()
        logits = np.zeros((len(batch), len(LABELS)), np.float32)
        # Clients may have left since it was taken.
        live = [place for place, (job, _) in enumerate(batch) if not job.done.done()]
        if not live:
            return logits, 0.0
        logits[live] = self._compute([batch[place][0].rows[batch[place][1]] for place in live])
        return logits, time.perf_counter() - started

    def _take(self) -> list[tuple[_Job, int]]:
        """Rows of one micro-batch: the next request's first one, and what goes well with it.

        Only the rows that come first are looked at, so that none of a rare length waits for ever
        while common ones pass it. When little waits, it is shared among the streams that are free.
        """
        window = self._window()
        most = min(self._most_rows, -(-self.waiting_rows // max(1, self._free)))
        order = sorted(range(len(window)), key=lambda n: len(window[n][0].rows[window[n][1]]))
        lengths = [len(window[n][0].rows[window[n][1]]) for n in order]
        start, end = best_run(lengths, order.index(0), most, self.budget, self._padded)
        batch = [self._pop(*window[n]) for n in order[start:end]]
        if self._turns[0].all_taken():
            self._turns.popleft()
        else:
            self._turns.rotate(-1)
        return batch

    def _window(self) -> list[tuple[_Job, int]]:
        """The rows that come next: one of each request, then a second one, so on."""
        while self._turns[0].all_taken():
            self._turns.popleft()
        found: list[tuple[_Job, int]] = []
        live = (job for job in self._turns if not job.all_taken())
        pending = [(job, job.next) for job in islice(live, self._look)]
        while pending and len(found) < self._look:
            again = []
            for job, i in pending:
                while i < len(job.rows) and job.taken[i]:
                    i += 1
                if i < len(job.rows):
                    found.append((job, i))
                    again.append((job, i + 1))
            pending = again
        return found[: self._look]

    def _pop(self, job: _Job, i: int) -> tuple[_Job, int]:
        job.taken[i] = True
        self.waiting_rows -= 1
        self.waiting_tokens -= len(job.rows[i])
        return job, i

    def _drop(self, job: _Job) -> None:
        for i in range(job.next, len(job.rows)):
            if not job.taken[i]:
                self._pop(job, i)
        if not self.waiting_rows:
            self._turns.clear()

    # --- answering ---

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[_Job, int]],
        tokens: int,
        done: asyncio.Future[tuple[Logits, float]],
    ) -> None:
        self._free += 1
        self.running_tokens -= tokens
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            found, seconds = done.result()
            if seconds:
                self._measure(tokens, seconds)
            if seconds and self.observer is not None:
                longest = max(len(job.rows[i]) for job, i in batch)
                self.observer(Batch(len(batch), tokens, longest, seconds))
            for place, (job, i) in enumerate(batch):
                job.logits[i] = found[place]
                job.left -= 1
                job.timing.computed = max(job.timing.computed, seconds)
                job.timing.rows = max(job.timing.rows, len(batch))
                if not job.left and not job.done.done():
                    job.done.set_result(None)
        else:
            for job, _ in batch:
                if not job.done.done():
                    job.done.set_exception(error)
                    self._drop(job)
        self._start(loop)

    def _measure(self, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-6) * self._streams
        self.rate = rate if not self.rate else self.rate + _RATE_SHARE * (rate - self.rate)
