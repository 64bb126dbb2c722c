"""A simulation of the service under load, in SimPy: gateways, micro-batches, streams.

A server has one Python thread (the gateway), which each request uses, and streams that compute
micro-batches. The topology `fused` has a server per replica. The topology `split` has a server per
gateway, whose streams are in the classifiers.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

_BATCHES_AHEAD = 2  # full batches that wait, from which on a stream gets its next one early
_WARM_UP_SHARE = 0.2  # of the simulated time, which is not counted

Steps = Generator[simpy.Event, Any, Any]  # of a process in SimPy


@dataclass(frozen=True)
class ServiceModel:
    """Times of a service, in seconds."""

    servers: int
    streams: int  # per server
    max_rows: int  # of a micro-batch
    batch_seconds: float  # of a micro-batch without its rows
    row_seconds: float  # of each row of a micro-batch
    gateway_seconds: float  # of the Python thread, per request; mean of an exponential distribution
    call_seconds: float = 0.0  # between gateway and classifier, per micro-batch
    network_seconds: float = 0.0  # between client and gateway, per request

    @property
    def capacity(self) -> float:
        """Requests/s that the threads and streams would answer without any waiting."""
        full_batch = self.batch_seconds + self.max_rows * self.row_seconds
        streams = self.streams * self.max_rows / full_batch
        return self.servers * min(1 / self.gateway_seconds, streams)


@dataclass(frozen=True)
class Simulated:
    """What a simulation measured."""

    rate: float  # answered requests/s
    mean: float  # milliseconds
    p50: float  # milliseconds
    p99: float  # milliseconds


@dataclass
class _Server:
    model: ServiceModel
    env: simpy.Environment
    draws: random.Random
    requests: int = 0  # in progress
    waiting: deque[simpy.Event] = field(default_factory=deque)  # rows, each with its answer
    batches: int = 0  # on their way or being computed

    def __post_init__(self) -> None:
        self.thread = simpy.Resource(self.env)
        self.streams = simpy.Resource(self.env, self.model.streams)

    def answer(self) -> Steps:
        """Answer a request of one text."""
        self.requests += 1
        yield from self._use_thread()
        answered = self.env.event()
        self.waiting.append(answered)
        self._start_batches()
        yield answered
        yield from self._use_thread()
        self.requests -= 1

    def _use_thread(self) -> Steps:
        """Use the Python thread for half of a request's time."""
        with self.thread.request() as turn:
            yield turn
            yield self.env.timeout(self.draws.expovariate(2 / self.model.gateway_seconds))

    def _start_batches(self) -> None:
        while self.waiting and (self._free > 0 or self._may_take_ahead()):
            size = min(self.model.max_rows, -(-len(self.waiting) // max(1, self._free)))
            batch = [self.waiting.popleft() for _ in range(size)]
            self.batches += 1
            self.env.process(self._compute(batch))

    @property
    def _free(self) -> int:
        return self.model.streams - self.batches

    def _may_take_ahead(self) -> bool:
        is_full = len(self.waiting) >= _BATCHES_AHEAD * self.model.max_rows
        return is_full and -self._free < self.model.streams

    def _compute(self, batch: list[simpy.Event]) -> Steps:
        model = self.model
        yield self.env.timeout(model.call_seconds / 2)
        with self.streams.request() as turn:
            yield turn
            yield self.env.timeout(model.batch_seconds + model.row_seconds * len(batch))
        yield self.env.timeout(model.call_seconds / 2)
        self.batches -= 1
        for answered in batch:
            answered.succeed()
        self._start_batches()


class _Service:
    """Servers behind a proxy that sends each request to the server with the fewest requests."""

    def __init__(self, model: ServiceModel, seed: int) -> None:
        self.env, self.draws = simpy.Environment(), random.Random(seed)
        self._network_seconds = model.network_seconds
        self._servers = [_Server(model, self.env, self.draws) for _ in range(model.servers)]
        self._answers: list[tuple[float, float]] = []  # time and duration of each

    def request(self) -> Steps:
        """Send a request and wait for the answer."""
        began = self.env.now
        yield self.env.timeout(self._network_seconds)
        server = min(self._servers, key=lambda candidate: candidate.requests)
        yield from server.answer()
        self._answers.append((self.env.now, self.env.now - began))

    def run(self, seconds: float, warm: float = 0.0) -> Simulated:
        """Simulate some seconds.

        Args:
            warm: seconds at the start that are not counted.
        """
        self.env.run(until=seconds)
        durations = [duration for time, duration in self._answers if time > warm]
        if not durations:
            return Simulated(0.0, float("inf"), float("inf"), float("inf"))
        p50, p99 = 1000 * np.quantile(durations, (0.5, 0.99))
        rate, mean = len(durations) / (seconds - warm), 1000 * float(np.mean(durations))
        return Simulated(rate, mean, float(p50), float(p99))


def simulate_connections(
    model: ServiceModel, connections: int, seconds: float, seed: int = 0
) -> Simulated:
    """Simulate clients that each send the next request when the last one is answered.

    As in a run of wrk, the first answers count, and the requests at the end have no answer.
    """
    service = _Service(model, seed)

    def client() -> Steps:
        while True:
            yield from service.request()

    for _ in range(connections):
        service.env.process(client())
    return service.run(seconds)


def simulate_arrivals(model: ServiceModel, rate: float, seconds: float, seed: int = 0) -> Simulated:
    """Simulate independent requests, a Poisson process.

    Args:
        rate: requests per second.
    """
    service = _Service(model, seed)

    def arrivals() -> Steps:
        while True:
            yield service.env.timeout(service.draws.expovariate(rate))
            service.env.process(service.request())

    service.env.process(arrivals())
    return service.run(seconds, _WARM_UP_SHARE * seconds)


def largest_rate(model: ServiceModel, p99: float, seconds: float = 4.0) -> float:
    """Return the largest rate of requests at which the p99 stays below a limit, to 2 %.

    Args:
        p99: limit in milliseconds.
    """
    low, high = 0.0, model.capacity  # above, the queue would grow without end
    while high - low > 0.02 * high:
        middle = (low + high) / 2
        simulated = simulate_arrivals(model, middle, seconds)
        if simulated.p99 <= p99 and simulated.rate > 0.95 * middle:
            low = middle
        else:
            high = middle
    return low
