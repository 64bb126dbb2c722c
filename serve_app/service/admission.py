"""Admission of requests to a replica, and their deadlines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serve_app.problems import Problem, overloaded, too_late, too_many_requests
from serve_app.service.following import ModelFollower
from serve_app.service.runtime import RuntimeConfig

_CHARACTERS_PER_TOKEN = 5  # average of financial English
_BYTES_PER_TOKEN = 8  # nearly all text has fewer, so the estimate is a lower bound


class Admission:
    """Refuses work that would wait longer than `serve.limits.queue_seconds`."""

    def __init__(self, runtime: RuntimeConfig, models: ModelFollower) -> None:
        self._runtime, self._models = runtime, models
        self.requests = 0  # in progress
        self.reserved_tokens = 0  # estimate, of texts that were admitted and are being encoded

    def deadline(self, requested: str | None, waited: float = 0.0) -> float:
        """Return the seconds that a request may still take.

        Args:
            requested: milliseconds, from the header X-Request-Timeout-Ms.
            waited: seconds that the request waited before it reached this process.

        Raises:
            Problem: `requested` is not a number of milliseconds, or the time is up.
        """
        limit = self._runtime.serve.limits.timeout_ms
        if requested is None:
            milliseconds = limit
        elif requested.isascii() and requested.isdigit() and int(requested[:9]) > 0:
            milliseconds = min(int(requested[:9]), limit)
        else:
            raise Problem(
                "invalid_request",
                f"X-Request-Timeout-Ms={requested[:20]!r}: not a number of milliseconds. Send a "
                f"whole number from 1 to {limit}.",
            )
        if waited * 1000 >= milliseconds:
            raise too_late(milliseconds / 1000)
        return milliseconds / 1000 - waited

    def admit(self, tokens: int) -> None:
        """Refuse work that would wait too long. A list is refused or accepted completely.

        Raises:
            Problem: overloaded, with the seconds after which there is room.
        """
        rate, queues = self._models.model.coalescer.rate, self._models.queues
        limits = self._runtime.serve.limits
        seconds_per_token = 1 / rate if rate else 0.0
        drain = sum(queue.drain_seconds for queue in queues)
        drain += self.reserved_tokens * seconds_per_token
        is_full = drain + tokens * seconds_per_token > limits.queue_seconds
        waiting_rows = sum(queue.waiting_rows for queue in queues)
        is_busy = bool(waiting_rows or self.reserved_tokens)
        # A request of more than a full queue is accepted when no other request waits.
        retry_after = max(1, math.ceil(drain))
        if self.requests > limits.requests:
            raise too_many_requests(limits.requests, retry_after)
        if is_full and is_busy:
            raise overloaded(waiting_rows, drain, retry_after)

    def admit_body(self, size: int) -> None:
        """Refuse a body by its size in bytes, before reading the body takes time.

        Raises:
            Problem: overloaded.
        """
        limit = self._runtime.serve.limits.texts * self._models.model.engine.max_length
        self.admit(min(size // _BYTES_PER_TOKEN, limit))

    def estimated_tokens(self, texts: Sequence[str]) -> int:
        """Estimate tokens from characters: tokenizing would cost more than a refusal saves."""
        limit = self._models.model.engine.max_length
        return sum(min(len(text) // _CHARACTERS_PER_TOKEN + 2, limit) for text in texts)
