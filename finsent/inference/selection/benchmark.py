"""Measure relative rates of backends so that other load on the machine cancels out.

Backends run in turns, in short slices. Load that lasts longer than a round slows all backends of
the round alike, so only ratios within a round are compared. Load that comes and goes makes the
rounds disagree, which `decide` reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from statistics import median

import numpy as np

from finsent.inference.backends import Backend, Run
from finsent.inference.batching import Ids

Clock = Callable[[], float]  # seconds
Rounds = dict[str, list[float]]  # rows/s of each round, by backend

LENGTHS = (16, 24, 32, 48)  # tokens per row, as financial sentences have them
MAX_ROWS = 8  # per micro-batch; more rows cost time and do not change the ratios
ROUNDS = 8  # two per length
SLICE_SECONDS = 0.03  # approximate, for the longest rows
MAX_DISSENTING_ROUNDS = 1  # of a clear decision: 7 of 8 rounds must agree

# Fastest first on quiet machines, see README.md. torch is measured only with a GPU.
PREFERENCE = ("torch-fp32", "openvino-int8", "onnxruntime-int8", "onnxruntime-fp32")


@dataclass(frozen=True)
class Decision:
    """The backend to use."""

    best: str
    is_clear: bool  # False: the rounds disagree, and `best` follows PREFERENCE
    rates: dict[str, float]  # rows/s by backend; their ratios are medians of the rounds' ratios


def benchmark_rows(backend: Backend) -> int:
    """Return the rows per micro-batch that `measure_rates` uses."""
    return min(backend.max_rows or MAX_ROWS, MAX_ROWS)


def measure_rates(backends: Mapping[str, Backend], clock: Clock = time.perf_counter) -> Rounds:
    """Measure backends in turns, each with all its streams busy.

    Args:
        clock: read at the beginning and at the end of each slice. The first slice of each backend
            finds how many micro-batches fill a slice; one slice per round and backend follows.
    """
    with ThreadPoolExecutor(max(backend.streams for backend in backends.values())) as pool:
        subjects = {name: _BusyBackend(backend, pool) for name, backend in backends.items()}
        for subject in subjects.values():
            for length in LENGTHS:
                subject.run(length, 1)  # the first micro-batch of a shape allocates or compiles
        token_seconds = {
            name: _timed(subject, LENGTHS[-1], 1, clock) / LENGTHS[-1]
            for name, subject in subjects.items()
        }
        rounds: Rounds = {name: [] for name in subjects}
        for number in range(ROUNDS):
            length = LENGTHS[number % len(LENGTHS)]
            for name, subject in subjects.items():
                repeats = max(1, round(SLICE_SECONDS / (token_seconds[name] * LENGTHS[-1])))
                seconds = _timed(subject, length, repeats, clock)
                rounds[name].append(repeats * subject.rows / seconds)
    return rounds


def decide(rounds: Rounds, names: Collection[str]) -> Decision:
    """Compare backends by their ratios within each round.

    A backend is clearly faster than another where all rounds but MAX_DISSENTING_ROUNDS agree. Of
    the backends that no other clearly beats, the first in PREFERENCE is the best.

    Args:
        rounds: rates by backend; empty: the measurement timed out, and PREFERENCE decides.
        names: backends to select from.
    """
    order = sorted(names, key=_preference)
    if not rounds:
        return Decision(order[0], False, {})
    unbeaten = [
        name for name in order if not any(_beats(rounds[other], rounds[name]) for other in order)
    ]
    best = unbeaten[0]
    best_rate = median(rounds[best])
    rates = {name: best_rate * median(_ratios(rounds[name], rounds[best])) for name in rounds}
    return Decision(best, len(unbeaten) == 1, rates)


class _BusyBackend:
    """A backend under measurement, with all its streams busy."""

    def __init__(self, backend: Backend, pool: ThreadPoolExecutor) -> None:
        self.backend, self._pool = backend, pool
        self._runs = backend.runs()
        self.rows = benchmark_rows(backend) * len(self._runs)  # per repeat

    def run(self, length: int, repeats: int) -> None:
        """Compute `repeats` micro-batches per stream; a free stream computes the next one."""
        shape = self.backend.padded_shape(benchmark_rows(self.backend), length)
        ids, mask = np.full(shape, 5, np.int64), np.ones(shape, np.int64)
        remaining = iter(range(repeats * len(self._runs)))
        futures = [self._pool.submit(_work, run, ids, mask, remaining) for run in self._runs]
        wait(futures)
        for future in futures:
            future.result()


def _work(run: Run, ids: Ids, mask: Ids, remaining: Iterator[int]) -> None:
    for _ in remaining:
        run(ids, mask)


def _timed(subject: _BusyBackend, length: int, repeats: int, clock: Clock) -> float:
    started = clock()
    subject.run(length, repeats)
    return max(clock() - started, 1e-9)


def _ratios(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    return [rate / other for rate, other in zip(rates, others, strict=True)]


def _beats(rates: Sequence[float], others: Sequence[float]) -> bool:
    return sorted(_ratios(rates, others))[MAX_DISSENTING_ROUNDS] > 1


def _preference(name: str) -> int:
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)
