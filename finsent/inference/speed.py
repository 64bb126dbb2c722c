"""Relative speeds of backends, measured so that other load on the machine cancels out.

Backends take turns in short slices. Load that lasts longer than a round slows all backends of the
round alike, so only ratios within a round are compared. Load that comes and goes makes the rounds
disagree, which `decide` reports.
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
MAX_ROWS = 8  # per micro-batch: more rows cost time and change no ratio
ROUNDS = 8  # each length twice
SLICE_SECONDS = 0.03  # about, for the longest rows; shorter rows take less
MAX_DISSENT = 1  # rounds in which a clearly faster backend may be slower: 7 of 8 must agree

# Fastest first on quiet machines, see README.md. torch is measured only where a GPU is.
PREFERENCE = ("torch-fp32", "openvino-int8", "onnxruntime-int8", "onnxruntime-fp32")


@dataclass(frozen=True)
class Decision:
    """The backend to use."""

    best: str
    is_clear: bool  # False: the rounds disagree, and `best` follows PREFERENCE
    rates: dict[str, float]  # rows/s by backend; their ratios are medians of the rounds' ratios


def rows_of(backend: Backend) -> int:
    """Rows per micro-batch that `measure` uses."""
    return min(backend.most_rows or MAX_ROWS, MAX_ROWS)


def measure(backends: Mapping[str, Backend], clock: Clock = time.perf_counter) -> Rounds:
    """Measure backends by turns, each with all its streams busy.

    Args:
        clock: read at the beginning and at the end of each slice: one slice per backend to find
            the number of micro-batches that fill a slice, then one per round and backend.
    """
    with ThreadPoolExecutor(max(backend.streams for backend in backends.values())) as pool:
        subjects = {name: _Subject(backend, pool) for name, backend in backends.items()}
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

    One backend is clearly faster than another where all rounds but MAX_DISSENT agree. Of those
    that no backend clearly beats, the first of PREFERENCE is the best.

    Args:
        rounds: empty where the measurement timed out: `best` then follows PREFERENCE alone.
        names: backends to choose from.
    """
    order = sorted(names, key=_preference)
    if not rounds:
        return Decision(order[0], False, {})
    rivals = [name for name in order if not any(_beats(rounds[o], rounds[name]) for o in order)]
    best = rivals[0]
    own = median(rounds[best])
    rates = {name: own * median(_ratios(rounds[name], rounds[best])) for name in rounds}
    return Decision(best, len(rivals) == 1, rates)


class _Subject:
    """A backend under measurement."""

    def __init__(self, backend: Backend, pool: ThreadPoolExecutor) -> None:
        self.backend, self._pool = backend, pool
        self._runs = backend.streams_of()
        self.rows = rows_of(backend) * len(self._runs)  # of a slice with one repeat

    def run(self, length: int, repeats: int) -> None:
        """Compute `repeats` micro-batches per stream; a free stream takes the next one."""
        shape = self.backend.shape(rows_of(self.backend), length)
        ids, mask = np.full(shape, 5, np.int64), np.ones(shape, np.int64)
        left = iter(range(repeats * len(self._runs)))
        futures = [self._pool.submit(_work, run, ids, mask, left) for run in self._runs]
        wait(futures)
        for future in futures:
            future.result()


def _work(run: Run, ids: Ids, mask: Ids, left: Iterator[int]) -> None:
    for _ in left:
        run(ids, mask)


def _timed(subject: _Subject, length: int, repeats: int, clock: Clock) -> float:
    started = clock()
    subject.run(length, repeats)
    return max(clock() - started, 1e-9)


def _ratios(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    return [rate / other for rate, other in zip(rates, others, strict=True)]


def _beats(rates: Sequence[float], others: Sequence[float]) -> bool:
    return sorted(_ratios(rates, others))[MAX_DISSENT] > 1


def _preference(name: str) -> int:
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)
