"""Greedy micro-batches: as soon as a stream is free, it computes rows that wait.

No row waits for a batch to fill. Requests gather while the streams compute. The next free stream
takes rows of similar length, starting with the request that has waited longest. While full batches
wait, one batch per stream is taken ahead, so that no stream waits for the event loop. Requests take
turns, so that a long list does not hold up a single text. The streams compute elsewhere
(`serve_app.service.streams`); everything else runs on one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import mul

import numpy as np

from finsent.inference.backends import Logits
from finsent.labels import LABELS
from serve_app.service.packing import best_run
from serve_app.service.streams import Computed, Streams

_RATE_SHARE = 0.1  # weight of a new measurement in the running rate
_USUAL_ROWS = 32  # of a micro-batch, where only the token budget limits them
_BATCHES_AHEAD = 2  # full micro-batches that wait before one is taken ahead of a free stream
_WINDOW_BATCHES = 8  # full micro-batches of waiting rows that the next one is chosen from


@dataclass(slots=True)
class Timing:
    """Times of the phases of a request."""

    encoded: float = 0.0  # seconds of tokenizing
    queued: float = 0.0  # seconds until a stream began to compute the last of its rows
    computed: float = 0.0  # seconds of the slowest of its micro-batches
    rows: int = 0  # of the largest of its micro-batches, including rows of other requests
    arrived: float = 0.0  # Unix time at which its rows entered the queue


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
    unanswered: int  # rows
    next: int = 0  # first row that may not have been taken
    taken: list[bool] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)

    def all_taken(self) -> bool:
        while self.next < len(self.rows) and self.taken[self.next]:
            self.next += 1
        return self.next == len(self.rows)


class Coalescer:
    """Feeds the streams of one engine with rows of many requests."""

    def __init__(
        self,
        streams: Streams,
        token_budget: int,
        max_rows: int | None,
        padded: Callable[[int, int], int] = mul,
    ) -> None:
        """Take no row yet.

        Args:
            streams: compute the micro-batches.
            token_budget: padded tokens of a micro-batch.
            max_rows: of a micro-batch.
            padded: returns the tokens that are computed for a number of rows and the length of the
                longest row.
        """
        self._streams, self.budget = streams, token_budget
        self._max_rows = max_rows or token_budget
        self._padded = padded
        self._window_rows = _WINDOW_BATCHES * min(self._max_rows, _USUAL_ROWS)
        self._running_batches = 0
        self._turns: deque[_Job] = deque()
        self.waiting_rows = 0
        self.waiting_tokens = 0
        self.running_tokens = 0
        self.observer: Callable[[Batch], None] | None = None
        self._stream_rate = 0.0  # tokens/s of a stream, a running mean; 0: not measured yet

    @property
    def rate(self) -> float:
        """Tokens/s of all streams; 0: not measured yet."""
        return self._stream_rate * self._streams.count

    @property
    def is_ready(self) -> bool:
        """Whether a micro-batch would be computed now."""
        return self._streams.is_ready

    @property
    def drain_seconds(self) -> float:
        """Seconds that the waiting and running tokens will take at the measured rate."""
        tokens = self.waiting_tokens + self.running_tokens + self._streams.other_tokens
        return tokens / self.rate if self.rate else 0.0

    @property
    def _free(self) -> int:
        """Streams without a batch; below 0: batches that were taken ahead of a free stream."""
        return self._streams.count - self._running_batches

    async def run(self, rows: Sequence[list[int]]) -> tuple[Logits, Timing]:
        """Return the logits of token ids, shape (rows, labels), in the order of the rows.

        When the caller is cancelled, rows that no stream has taken are dropped.
        """
        if not rows:  # no batch would ever answer the request
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
        """Release the streams when they have finished the batches that they compute."""
        self._streams.close()

    # --- taking ---

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self.waiting_rows and (self._free > 0 or self._may_take_ahead()):
            batch = self._take()
            self._running_batches += 1
            tokens = sum(len(job.rows[i]) for job, i in batch)
            self.running_tokens += tokens
            rows = [job.rows[i] for job, i in batch]
            future = self._streams.submit(rows, partial(_pending, batch), self.waiting_tokens)
            future.add_done_callback(partial(self._finish, loop, batch, tokens))
        if not self.waiting_rows:  # all rows of these requests were taken
            self._turns.clear()

    def _may_take_ahead(self) -> bool:
        """Return whether a full batch may be taken before a stream is free: one per stream."""
        batches = max(self.waiting_rows / self._max_rows, self.waiting_tokens / self.budget)
        return batches >= _BATCHES_AHEAD and -self._free < self._streams.count

    def _take(self) -> list[tuple[_Job, int]]:
        """Take the next request's first row, and the rows that go best with it in a micro-batch.

        Only the first rows of the queue are considered, so that a row of a rare length does not
        wait forever. When few rows wait, the free streams share them.
        """
        window = self._window()
        limit = min(self._max_rows, -(-self.waiting_rows // max(1, self._free)))
        order = sorted(range(len(window)), key=lambda n: len(window[n][0].rows[window[n][1]]))
        lengths = [len(window[n][0].rows[window[n][1]]) for n in order]
        start, end = best_run(lengths, order.index(0), limit, self.budget, self._padded)
        batch = [self._pop(*window[n]) for n in order[start:end]]
        if self._turns[0].all_taken():
            self._turns.popleft()
        else:
            self._turns.rotate(-1)
        return batch

    def _window(self) -> list[tuple[_Job, int]]:
        """Return the next rows in turns: the first row of each request, then the second of each."""
        while self._turns[0].all_taken():
            self._turns.popleft()
        window: list[tuple[_Job, int]] = []
        live = (job for job in self._turns if not job.all_taken())
        pending = [(job, job.next) for job in islice(live, self._window_rows)]
        while pending and len(window) < self._window_rows:
            next_turn = []
            for job, i in pending:
                while i < len(job.rows) and job.taken[i]:
                    i += 1
                if i < len(job.rows):
                    window.append((job, i))
                    next_turn.append((job, i + 1))
            pending = next_turn
        return window[: self._window_rows]

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
        done: asyncio.Future[Computed],
    ) -> None:
        self._running_batches -= 1
        self.running_tokens -= tokens
        error = _error(done)
        if error is None:
            logits, seconds = done.result()
            if seconds:
                self._measure(tokens, seconds)
            if seconds and self.observer is not None:
                longest = max(len(job.rows[i]) for job, i in batch)
                self.observer(Batch(len(batch), tokens, longest, seconds))
            began = time.perf_counter() - seconds  # a batch may wait for a stream elsewhere
            for n, (job, i) in enumerate(batch):
                job.logits[i] = logits[n]
                job.timing.queued = max(job.timing.queued, began - job.arrived)
                job.unanswered -= 1
                job.timing.computed = max(job.timing.computed, seconds)
                job.timing.rows = max(job.timing.rows, len(batch))
                if not job.unanswered and not job.done.done():
                    job.done.set_result(None)
        else:
            for job, _ in batch:
                if not job.done.done():
                    job.done.set_exception(error)
                    self._drop(job)
        self._start(loop)

    def _measure(self, tokens: int, seconds: float) -> None:
        rate, mean = tokens / max(seconds, 1e-6), self._stream_rate
        self._stream_rate = mean + _RATE_SHARE * (rate - mean) if mean else rate


def _error(done: asyncio.Future[Computed]) -> BaseException | None:
    """Return the error of a micro-batch: a request whose rows were cancelled must end, too."""
    if done.cancelled():
        return RuntimeError("the micro-batch was cancelled")
    return done.exception()


def _pending(batch: Sequence[tuple[_Job, int]]) -> list[int]:
    """Return the numbers of the rows of a batch whose clients have not left."""
    return [number for number, (job, _) in enumerate(batch) if not job.done.done()]
