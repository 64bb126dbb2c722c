"""What a replica counts, in Prometheus' terms."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from serve_app.coalescer import Timing
from serve_app.service import Answer, Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one replica."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        made: dict[str, Any] = {"registry": self.registry, "namespace": "finsent"}
        self._requests = Counter(
            "requests", "Requests by operation and status.", ["operation", "status"], **made
        )
        self._latency = Histogram(
            "request_seconds", "Time from a request's last byte to its answer.", ["operation"],
            buckets=_SECONDS, **made,
        )  # fmt: skip
        self._queued = Histogram(
            "queue_seconds", "Time that texts waited for a stream.", buckets=_SECONDS, **made
        )
        self._computed = Histogram(
            "inference_seconds", "Time of a micro-batch.", buckets=_SECONDS, **made
        )
        self._rows = Histogram(
            "batch_rows", "Rows of a micro-batch.", buckets=(1, 2, 4, 8, 16, 32, 64), **made
        )
        self._labels = Counter(
            "predictions", "Texts by label and model version.", ["label", "model_version"], **made
        )
        self._scores = Histogram(
            "score", "Probability of the label.", buckets=[i / 10 for i in range(4, 11)], **made
        )
        self._marks = Counter(
            "marked_predictions", "Texts that were truncated, or abstained on.", ["mark"], **made
        )
        self._refused = Counter("problems", "Problems by code.", ["code"], **made)
        self._gauges = {
            name: Gauge(name, text, **made)
            for name, text in {
                "queue_rows": "Texts that wait.",
                "queue_tokens": "Tokens that wait or are computed.",
                "drain_seconds": "Time that they will take, by the rate measured.",
                "requests_in_progress": "Requests at work.",
                "cache_hits": "Answers from the cache since the start.",
            }.items()
        }

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(operation, str(status)).inc()
        self._latency.labels(operation).observe(seconds)

    def problem(self, code: str) -> None:
        """Count a problem, of a request or of a text in it."""
        self._refused.labels(code).inc()

    def answers(self, answers: list[Answer], timing: Timing) -> None:
        """Count what a request was answered."""
        if timing.rows:
            self._queued.observe(timing.queued)
            self._computed.observe(timing.computed)
            self._rows.observe(timing.rows)
        for one in answers:
            self._labels.labels(one.prediction.label, one.model_version).inc()
            self._scores.observe(one.prediction.score)
            if one.truncated:
                self._marks.labels("truncated").inc()
            if one.prediction.abstained:
                self._marks.labels("abstained").inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        service = self._service
        queue = service.model.coalescer if service.ready else None
        stats = service.stats()
        self._gauges["queue_rows"].set(queue.waiting_rows if queue else 0)
        self._gauges["queue_tokens"].set(stats["queue_tokens"])
        self._gauges["drain_seconds"].set(stats["drain_seconds"])
        self._gauges["requests_in_progress"].set(service.requests)
        self._gauges["cache_hits"].set(service.cache_hits)
        return generate_latest(self.registry)
