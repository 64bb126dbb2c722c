"""Answers that a replica keeps."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from serve_app.service.answer import Answer
from serve_app.service.runtime import RuntimeConfig

# Model version, id of the calibration, truncation policy, text.
CacheKey: TypeAlias = tuple[str, str, str, str]


class AnswerCache:
    """The `serve.cache_entries` answers that were used last."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self._runtime = runtime
        self._answers: OrderedDict[CacheKey, Answer] = OrderedDict()
        self.hits = 0

    def get(self, key: CacheKey) -> Answer | None:
        """Return an answer; None: it is not in the cache."""
        if not self._runtime.serve.cache_entries:
            return None
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
            self.hits += 1
        return answer

    def put(self, key: CacheKey, answer: Answer) -> None:
        """Keep an answer, in place of the one that was used longest ago."""
        if not self._runtime.serve.cache_entries:
            return
        self._answers[key] = answer
        if len(self._answers) > self._runtime.serve.cache_entries:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        """Drop all answers."""
        self._answers.clear()
