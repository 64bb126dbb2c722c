"""Requests at a fixed rate, whether or not earlier requests have been answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

RATE = 20.0  # requests/s
_THREADS = 64
_TIMEOUT_SECONDS = 30.0


@dataclass
class Answers:
    """Answers to the requests so far."""

    seconds: list[float] = field(default_factory=list)  # from the planned start to the answer
    failures: Counter[str] = field(default_factory=Counter)  # by status or class of the error
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        """Number of requests that have an answer or an error."""
        return len(self.seconds) + self.failures.total()

    def add(self, outcome: str, seconds: float) -> None:
        """Count a request by its status, or by the class of its error."""
        with self._lock:
            if outcome == "200":
                self.seconds.append(seconds)
            else:
                self.failures[outcome] += 1


@contextmanager
def open_loop(address: str, rate: float = RATE) -> Iterator[Answers]:
    """Send predictions to an address while the block runs, and wait for the last answers."""
    answers, end = Answers(), threading.Event()
    limits = httpx.Limits(max_connections=_THREADS)
    with (
        httpx.Client(base_url=address, timeout=_TIMEOUT_SECONDS, limits=limits) as client,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        start = time.monotonic()

        def plan() -> None:
            number = 0
            while not end.wait(max(0.0, start + number / rate - time.monotonic())):
                pool.submit(_send, client, number, start + number / rate, answers)
                number += 1

        planner = threading.Thread(target=plan)
        planner.start()
        try:
            yield answers
        finally:
            end.set()
            planner.join()


def _send(client: httpx.Client, number: int, planned: float, answers: Answers) -> None:
    """Send a text of its own, so that no answer comes from a cache."""
    try:
        response = client.post("/predict", json={"text": f"Profit rose by {number} percent."})
        outcome = str(response.status_code)
    except httpx.HTTPError as error:
        outcome = type(error).__name__
    answers.add(outcome, time.monotonic() - planned)
