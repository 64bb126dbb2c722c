"""Where micro-batches are computed: threads of this process, or classifiers (`serve_app.split`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Protocol, TypeAlias

import numpy as np

from finsent.inference.backends import Logits
from finsent.inference.batching import Row
from finsent.labels import LABELS

# Logits of a micro-batch, shape (rows, labels), and the seconds that the model took.
Computed: TypeAlias = tuple[Logits, float]
# Returns the numbers of the rows of a micro-batch whose clients still wait.
Pending: TypeAlias = Callable[[], list[int]]


class Streams(Protocol):
    """Computes micro-batches; all methods belong to one event loop."""

    @property
    def count(self) -> int:
        """Micro-batches that are computed at a time; may change."""

    @property
    def is_ready(self) -> bool:
        """Whether a micro-batch would be computed now."""

    @property
    def other_tokens(self) -> float:
        """Tokens of other processes that wait for the same streams."""

    def submit(
        self, rows: Sequence[Row], pending: Pending, waiting_tokens: int
    ) -> asyncio.Future[Computed]:
        """Start to compute a micro-batch. The logits of rows that are not pending are zeros.

        Args:
            waiting_tokens: of rows that are not submitted yet.
        """

    def close(self) -> None:
        """Release the streams when the batches that they compute are finished."""


class ThreadStreams:
    """Computes in threads of this process, which start with the first micro-batch."""

    is_ready = True
    other_tokens = 0.0

    def __init__(self, compute: Callable[[Sequence[Row]], Logits], count: int) -> None:
        """Start no thread yet.

        Args:
            compute: returns the logits of a micro-batch; called in `count` threads at a time.
        """
        self._compute, self.count = compute, count
        self._pool = ThreadPoolExecutor(count, "stream")

    def submit(
        self,
        rows: Sequence[Row],
        pending: Pending,
        waiting_tokens: int = 0,  # noqa: ARG002 # no other process needs to know
    ) -> asyncio.Future[Computed]:
        """See `Streams.submit`."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._work, rows, pending)

    def _work(self, rows: Sequence[Row], pending: Pending) -> Computed:
        started = perf_counter()
        logits = np.zeros((len(rows), len(LABELS)), np.float32)
        numbers = pending()  # clients may have left since the batch was submitted
        if not numbers:
            return logits, 0.0
        logits[numbers] = self._compute([rows[number] for number in numbers])
        return logits, perf_counter() - started

    def close(self) -> None:
        """See `Streams.close`."""
        self._pool.shutdown(wait=False)
