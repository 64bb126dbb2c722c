"""The load of each classifier as a gateway knows it, and the choice of the least loaded one.

A gateway counts its own tokens at each classifier. It learns the tokens of other gateways from the
answers, so these counts are as old as the last answer. They expire.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

_REPORT_SECONDS = 1.0  # for which a report of other gateways' tokens counts
_LOAD_SECONDS = 1.0  # after which a classifier that lacked a version is tried again


@dataclass(slots=True)
class _Sent:
    tokens: int
    classifier: str | None = None  # None: not chosen yet


class ClassifierLoads:
    """Tokens at each classifier. Ray's router may call it from a thread of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._running: set[str] = set()
        self._sent: dict[int, _Sent] = {}  # by number of the micro-batch
        self._own: dict[str, int] = {}  # tokens of this gateway by classifier
        self._others: dict[str, tuple[float, float]] = {}  # tokens, and the time of the report
        self._lacking: dict[tuple[str, str], float] = {}  # until when, by classifier and version

    @property
    def count(self) -> int:
        """Number of classifiers; at least 1."""
        return max(1, len(self._running))

    @property
    def is_any_running(self) -> bool:
        """Whether a classifier runs."""
        return bool(self._running)

    @property
    def other_tokens(self) -> float:
        """Tokens of other gateways that wait for the classifiers or run on them."""
        with self._lock:
            return sum(self._reported(classifier) for classifier in self._running)

    def set_classifiers(self, classifiers: Iterable[str]) -> None:
        """Record which classifiers run."""
        with self._lock:
            self._running = set(classifiers)
            for by_classifier in (self._own, self._others):
                for gone in by_classifier.keys() - self._running:
                    del by_classifier[gone]

    def begin(self, number: int, tokens: int) -> None:
        """Record a micro-batch that gets a classifier next."""
        with self._lock:
            self._sent[number] = _Sent(tokens)

    def assign(self, number: int, classifier: str) -> None:
        """Count a micro-batch at a classifier, in place of an earlier one.

        A micro-batch that has ended is ignored: its client may leave while Ray chooses.
        """
        with self._lock:
            sent = self._sent.get(number)
            if sent is not None:
                self._uncount(sent)
                sent.classifier = classifier
                self._own[classifier] = self._own.get(classifier, 0) + sent.tokens

    def end(self, number: int) -> None:
        """Count a micro-batch no longer."""
        with self._lock:
            self._uncount(self._sent.pop(number))

    def report(self, classifier: str, other_tokens: float) -> None:
        """Record the tokens of other gateways, as a classifier counts them."""
        with self._lock:
            self._others[classifier] = (other_tokens, self._clock())

    def lacks(self, classifier: str, version: str) -> None:
        """Record that a classifier has not loaded a version yet."""
        with self._lock:
            self._lacking[classifier, version] = self._clock() + _LOAD_SECONDS

    def ranked(self, classifiers: Sequence[str], version: str | None) -> list[str]:
        """Return classifiers, the least loaded first, and those without the version last."""
        with self._lock:
            now = self._clock()
            for key in [key for key, until in self._lacking.items() if until <= now]:
                del self._lacking[key]
            return sorted(
                random.sample(classifiers, len(classifiers)),  # equal loads in any order
                key=lambda name: (
                    version is not None and (name, version) in self._lacking,
                    self._own.get(name, 0) + self._reported(name),
                ),
            )

    def _reported(self, classifier: str) -> float:
        tokens, when = self._others.get(classifier, (0.0, 0.0))
        return tokens if self._clock() - when < _REPORT_SECONDS else 0.0

    def _uncount(self, sent: _Sent) -> None:
        if sent.classifier in self._own:
            self._own[sent.classifier] -= sent.tokens


# Of this gateway. Ray makes the router, which knows no object of the gateway.
LOADS = ClassifierLoads()
