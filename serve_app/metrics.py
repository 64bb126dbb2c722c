"""Prometheus metrics of a replica: at its own /metrics, and through Ray's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import prometheus_client as prometheus

from serve_app.problems import Problem
from serve_app.request_log import Outcome
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.coalescer import Batch, Timing
from serve_app.service.routing import RequestRouter, RouterCounts
from serve_app.service.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECOND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_SCORE_BUCKETS = tuple(i / 10 for i in range(4, 11))


class _Instruments:
    """Makes each metric for this replica's /metrics and, under Ray, for the endpoint of the node.

    The endpoint of the node has the metrics of all replicas, with tags that tell them apart.
    """

    def __init__(self, ray_metrics: ModuleType | None) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._ray = ray_metrics

    def counter(self, name: str, text: str, *labels: str) -> _Instrument:
        """Return a new counter."""
        return self._instrument("Counter", name, text, labels)

    def gauge(self, name: str, text: str) -> _Instrument:
        """Return a new gauge."""
        return self._instrument("Gauge", name, text, ())

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], *labels: str
    ) -> _Instrument:
        """Return a new histogram."""
        return self._instrument("Histogram", name, text, labels, buckets)

    def _instrument(
        self,
        kind: str,
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: Sequence[float] | None = None,
    ) -> _Instrument:
        name = f"finsent_{name}"
        own_buckets = {} if buckets is None else {"buckets": buckets}
        own = getattr(prometheus, kind)(name, text, labels, registry=self.registry, **own_buckets)
        if self._ray is None:
            return _Instrument(own, None, labels)
        ray_buckets = {} if buckets is None else {"boundaries": [*buckets]}
        ray_metric = getattr(self._ray, kind)(name, text, tag_keys=labels or None, **ray_buckets)
        return _Instrument(own, ray_metric, labels)


class _Instrument:
    """A metric with its twin in Ray's metrics."""

    def __init__(self, own: Any, ray_metric: Any, labels: tuple[str, ...]) -> None:
        self._own, self._ray_metric, self._labels = own, ray_metric, labels

    def _do(self, verb: str, value: float, labels: tuple[str, ...]) -> None:
        getattr(self._own.labels(*labels) if labels else self._own, verb)(value)
        if self._ray_metric is not None:
            tags = dict(zip(self._labels, labels, strict=True)) if labels else None
            getattr(self._ray_metric, verb)(value, tags)

    def inc(self, *labels: str, by: float = 1) -> None:
        if by > 0:  # Ray refuses zero
            self._do("inc", by, labels)

    def observe(self, value: float, *labels: str) -> None:
        self._do("observe", value, labels)

    def set(self, value: float, *labels: str) -> None:
        self._do("set", value, labels)


_GAUGES = {
    "queue_rows": "Texts that wait.",
    "queue_tokens": "Tokens that wait or are being computed.",
    "drain_seconds": "Time that they will take at the measured rate.",
    "requests_in_progress": "Requests in progress.",
    "rollout_share": "Share of the requests that a canary gets.",
    "rollout_worse_evidence": "Evidence that the canary is worse; 1 / promote.alpha rolls back.",
    "rollout_safe_evidence": "Evidence that the canary is safe; 1 / promote.alpha ends the stage.",
    "rollout_rolled_back": "1: the latest rollout was rolled back; /info has the reason.",
    "rollout_decisions": "Decisions of the latest rollout.",
    "user_config_refused": "1: the last user_config was refused; /info has the reason.",
}


class Metrics:
    """The metrics of one replica."""

    def __init__(self, service: Service, ray_metrics: ModuleType | None = None) -> None:
        """Make the metrics, and listen to a service.

        Args:
            ray_metrics: `ray.serve.metrics`, in a replica.
        """
        make = _Instruments(ray_metrics)
        self.registry = make.registry
        self._service = service
        self._requests = make.counter(
            "requests", "Requests by operation and status.", "operation", "status"
        )
        self._latency = make.histogram(
            "request_seconds", "Time of a request.", _SECOND_BUCKETS, "operation"
        )
        self._stages = make.histogram(
            "stage_seconds",
            "Time of a request's texts by stage: tokenizing, waiting for a stream, the model.",
            _SECOND_BUCKETS,
            "stage",
        )
        self._rows = make.histogram("batch_rows", "Rows of a micro-batch.", _ROW_BUCKETS)
        self._tokens = make.counter("tokens", "Tokens of texts and of padding.", "kind")
        self._labels = make.counter(
            "predictions", "Texts by label and model.", "label", "model_version"
        )
        self._scores = make.histogram("score", "Probability of the label.", _SCORE_BUCKETS)
        self._marks = make.counter(
            "marked_predictions", "Texts that were truncated or abstained on.", "mark"
        )
        # The label `key` has as many values as the file of keys has names, and `auth.UNKNOWN`.
        self._keys = make.counter(
            "key_requests",
            "Requests by the name of their API key, if the service needs keys.",
            "key",
            "operation",
            "status",
        )
        self._key_texts = make.counter("key_texts", "Texts by the name of the API key.", "key")
        self._problems = make.counter("problems", "Refused requests by code.", "code")
        self._text_problems = make.counter("text_problems", "Texts without an answer.", "code")
        self._hits = make.counter("cache_hits", "Answers from the cache.")
        self._counted_hits = 0
        self._routed = make.counter(
            "rollout_requests",
            "Requests during rollouts by the version that answered: canary, current, or fallback "
            "(the current version in the canary's place).",
            "answered_by",
        )
        self._counted_routed = RouterCounts()
        self._gauges = {name: make.gauge(name, text) for name, text in _GAUGES.items()}
        service.answer_listeners.append(self.answered)
        service.batch_listeners.append(self.computed)

    def request(self, outcome: Outcome) -> None:
        """Count a request."""
        operation, status, key = outcome.operation, str(outcome.status), outcome.sender.key
        self._requests.inc(operation, status)
        self._latency.observe(outcome.seconds, operation)
        if outcome.code is not None:
            self._problems.inc(outcome.code)
        if key is not None:
            self._keys.inc(key, operation, status)

    def computed(self, batch: Batch, padded: int) -> None:
        """Count a micro-batch.

        Args:
            padded: tokens of the micro-batch with padding.
        """
        self._rows.observe(batch.rows)
        self._tokens.inc("text", by=batch.tokens)
        self._tokens.inc("padding", by=padded - batch.tokens)

    def answered(
        self, sender: Sender, _: Sequence[Any], answers: Sequence[Answer | Problem], timing: Timing
    ) -> None:
        """Count the answers of a request."""
        if sender.key is not None:
            self._key_texts.inc(sender.key, by=len(answers))
        if timing.rows:
            self._stages.observe(timing.encoded, "encode")
            self._stages.observe(timing.queued, "queue")
            self._stages.observe(timing.computed, "inference")
        for answer in answers:
            if isinstance(answer, Problem):
                self._text_problems.inc(answer.code)
                continue
            self._labels.inc(answer.prediction.label, answer.model_version)
            self._scores.observe(answer.prediction.score)
            if answer.truncated:
                self._marks.inc("truncated")
            if answer.prediction.abstained:
                self._marks.inc("abstained")

    def refresh(self) -> None:
        """Update the gauges, and the counters that other parts keep."""
        service = self._service
        stats = service.stats()
        self._gauges["queue_rows"].set(sum(queue.waiting_rows for queue in service.models.queues))
        self._gauges["queue_tokens"].set(stats["queue_tokens"])
        self._gauges["drain_seconds"].set(stats["drain_seconds"])
        self._gauges["requests_in_progress"].set(service.admission.requests)
        self._gauges["user_config_refused"].set(service.refused_config is not None)
        self._hits.inc(by=service.cache.hits - self._counted_hits)
        self._counted_hits = service.cache.hits
        if service.router is not None:
            self._refresh_rollout(service.router)

    def _refresh_rollout(self, router: RequestRouter) -> None:
        for name, count in vars(router.counts).items():
            self._routed.inc(name, by=count - getattr(self._counted_routed, name))
        self._counted_routed = replace(router.counts)
        record = router.record
        if record is None:
            return
        test = record.test()
        self._gauges["rollout_share"].set(record.share)
        self._gauges["rollout_worse_evidence"].set(test.worse_wealth)
        self._gauges["rollout_safe_evidence"].set(test.safe_wealth)
        self._gauges["rollout_rolled_back"].set(record.status == "rolled back")
        self._gauges["rollout_decisions"].set(len(record.decisions))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.refresh()
        return prometheus.generate_latest(self.registry)
