"""The work of all gateways that waits for one classifier."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.split.messages import MicroBatch

_REPORT_SECONDS = 2.0  # for which a gateway's report counts


class GatewayQueues:
    """Tokens at a classifier, and those that wait at gateways, by gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._here: Counter[str] = Counter()
        self._reports: dict[str, tuple[float, float]] = {}  # tokens, and the time of the report

    @contextmanager
    def counted(self, batch: MicroBatch) -> Iterator[None]:
        """Count a micro-batch as long as it is at the classifier."""
        self._reports[batch.gateway] = (batch.waiting_tokens, self._clock())
        self._here[batch.gateway] += batch.tokens
        try:
            yield
        finally:
            self._here[batch.gateway] -= batch.tokens

    @property
    def tokens(self) -> float:
        """Tokens of all gateways."""
        return self._here.total() + sum(self._waiting().values())

    def of_others(self, gateway: str) -> float:
        """Return the tokens of all gateways but one."""
        own = self._here[gateway] + self._waiting().get(gateway, 0.0)
        return max(0.0, self.tokens - own)

    def _waiting(self) -> dict[str, float]:
        """Return the tokens that wait at gateways; forget gateways that have gone."""
        now = self._clock()
        gone = [name for name, (_, when) in self._reports.items() if now - when > _REPORT_SECONDS]
        for name in gone:
            del self._reports[name]
            if not self._here[name]:
                del self._here[name]
        return {name: tokens for name, (tokens, _) in self._reports.items()}
