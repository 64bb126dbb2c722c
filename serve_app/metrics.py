"""Prometheus metrics of a replica: at its own /metrics, and through Ray's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import prometheus_client as prometheus

from finsent.metric_list import (
    BATCH_ROWS,
    CACHE_HITS,
    DEADLINE_SECONDS,
    DRAIN_SECONDS,
    KEY_REQUESTS,
    KEY_TEXTS,
    MARKED_PREDICTIONS,
    PREDICTIONS,
    PREFIX,
    PROBLEMS,
    QUEUE_LIMIT_SECONDS,
    QUEUE_ROWS,
    QUEUE_TOKENS,
    READY,
    REQUEST_SECONDS,
    REQUESTS,
    REQUESTS_IN_PROGRESS,
    ROLLOUT_DECISIONS,
    ROLLOUT_REQUESTS,
    ROLLOUT_ROLLED_BACK,
    ROLLOUT_SAFE_EVIDENCE,
    ROLLOUT_SHARE,
    ROLLOUT_WORSE_EVIDENCE,
    SCORE,
    SERVED_MODEL,
    SERVICE_METRICS,
    STAGE_SECONDS,
    TEXT_PROBLEMS,
    TOKENS,
    USER_CONFIG_REFUSED,
    Metric,
)
from serve_app.problems import Problem
from serve_app.request_log import Outcome
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.coalescer import Batch, Timing
from serve_app.service.routing import RequestRouter, RouterCounts
from serve_app.service.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Instruments:
    """Makes each metric for this replica's /metrics and, under Ray, for the endpoint of the node.

    The endpoint of the node has the metrics of all replicas, with tags that tell them apart.
    """

    def __init__(self, ray_metrics: ModuleType | None) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._ray = ray_metrics

    def make(self, metric: Metric) -> _Instrument:
        """Return a new instrument."""
        kind, name, labels = metric.kind.capitalize(), PREFIX + metric.name, metric.labels
        own_buckets = {"buckets": metric.buckets} if metric.buckets else {}
        own = getattr(prometheus, kind)(
            name, metric.text, labels, registry=self.registry, **own_buckets
        )
        if self._ray is None:
            return _Instrument(own, None, labels)
        ray_buckets = {"boundaries": [*metric.buckets]} if metric.buckets else {}
        ray_metric = getattr(self._ray, kind)(
            name, metric.text, tag_keys=labels or None, **ray_buckets
        )
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


class Metrics:
    """The metrics of one replica."""

    def __init__(self, service: Service, ray_metrics: ModuleType | None = None) -> None:
        """Make the metrics, and listen to a service.

        Args:
            ray_metrics: `ray.serve.metrics`, in a replica.
        """
        instruments = _Instruments(ray_metrics)
        self.registry = instruments.registry
        self._service = service
        self._instruments = {metric: instruments.make(metric) for metric in SERVICE_METRICS}
        self._counted_hits = 0
        self._shown_model: str | None = None  # the model version whose gauge is 1
        self._counted_routed = RouterCounts()
        service.answer_listeners.append(self.answered)
        service.batch_listeners.append(self.computed)

    def request(self, outcome: Outcome) -> None:
        """Count a request."""
        operation, status, key = outcome.operation, str(outcome.status), outcome.sender.key
        self._instruments[REQUESTS].inc(operation, status)
        self._instruments[REQUEST_SECONDS].observe(outcome.seconds, operation)
        if outcome.code is not None:
            self._instruments[PROBLEMS].inc(outcome.code)
        if key is not None:
            self._instruments[KEY_REQUESTS].inc(key, operation, status)

    def computed(self, batch: Batch, padded: int) -> None:
        """Count a micro-batch.

        Args:
            padded: tokens of the micro-batch with padding.
        """
        self._instruments[BATCH_ROWS].observe(batch.rows)
        self._instruments[TOKENS].inc("text", by=batch.tokens)
        self._instruments[TOKENS].inc("padding", by=padded - batch.tokens)

    def answered(
        self, sender: Sender, _: Sequence[Any], answers: Sequence[Answer | Problem], timing: Timing
    ) -> None:
        """Count the answers of a request."""
        if sender.key is not None:
            self._instruments[KEY_TEXTS].inc(sender.key, by=len(answers))
        if timing.rows:
            self._instruments[STAGE_SECONDS].observe(timing.encoded, "encode")
            self._instruments[STAGE_SECONDS].observe(timing.queued, "queue")
            self._instruments[STAGE_SECONDS].observe(timing.computed, "inference")
        for answer in answers:
            if isinstance(answer, Problem):
                self._instruments[TEXT_PROBLEMS].inc(answer.code)
                continue
            self._instruments[PREDICTIONS].inc(answer.prediction.label, answer.model_version)
            self._instruments[SCORE].observe(answer.prediction.score)
            if answer.truncated:
                self._instruments[MARKED_PREDICTIONS].inc("truncated")
            if answer.prediction.abstained:
                self._instruments[MARKED_PREDICTIONS].inc("abstained")

    def refresh(self) -> None:
        """Update the gauges, and the counters that other parts keep."""
        service = self._service
        is_loaded = service.models.ready
        queue = service.model.coalescer if is_loaded else None
        stats = service.stats()
        waiting_rows = sum(queue.waiting_rows for queue in service.models.queues)
        self._instruments[QUEUE_ROWS].set(waiting_rows)
        self._instruments[QUEUE_TOKENS].set(stats["queue_tokens"])
        self._instruments[DRAIN_SECONDS].set(stats["drain_seconds"])
        self._instruments[REQUESTS_IN_PROGRESS].set(service.admission.requests)
        self._instruments[USER_CONFIG_REFUSED].set(service.refused_config is not None)
        self._instruments[CACHE_HITS].inc(by=service.cache.hits - self._counted_hits)
        self._counted_hits = service.cache.hits
        limits = service.config.limits
        self._instruments[QUEUE_LIMIT_SECONDS].set(limits.queue_seconds)
        self._instruments[DEADLINE_SECONDS].set(limits.timeout_ms / 1000)
        self._instruments[READY].set(queue is not None and queue.is_ready)
        self._set_model(service.model.version if is_loaded else None)
        if service.router is not None:
            self._refresh_rollout(service.router)

    def _set_model(self, version: str | None) -> None:
        """Set the gauge of the model version that answers to 1, and that of the one before to 0."""
        if self._shown_model not in (None, version):
            self._instruments[SERVED_MODEL].set(0, self._shown_model)
        if version is not None:
            self._instruments[SERVED_MODEL].set(1, version)
        self._shown_model = version

    def _refresh_rollout(self, router: RequestRouter) -> None:
        for name, count in vars(router.counts).items():
            by = count - getattr(self._counted_routed, name)
            self._instruments[ROLLOUT_REQUESTS].inc(name, by=by)
        self._counted_routed = replace(router.counts)
        record = router.record
        if record is None:
            return
        test = record.test()
        self._instruments[ROLLOUT_SHARE].set(record.share)
        self._instruments[ROLLOUT_WORSE_EVIDENCE].set(test.worse_wealth)
        self._instruments[ROLLOUT_SAFE_EVIDENCE].set(test.safe_wealth)
        self._instruments[ROLLOUT_ROLLED_BACK].set(record.status == "rolled back")
        self._instruments[ROLLOUT_DECISIONS].set(len(record.decisions))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.refresh()
        return prometheus.generate_latest(self.registry)
