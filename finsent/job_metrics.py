"""Export the metrics of a job through Ray, whose nodes offer them to Prometheus.

Nothing is exported where this process has no Ray, or where Ray collects no metrics, as on the
local Ray of a job. A value costs 4 microseconds. Ray sends values every ten seconds, and once at
the end of the process. A node drops a gauge that was not sent for twenty seconds.
"""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Any

from finsent.adapters.ray_core import collects_metrics
from finsent.metric_list import PREFIX, Metric

_REPEAT_SECONDS = 5.0  # shorter than the interval at which Ray sends values
_Labels = tuple[tuple[str, str], ...]


class JobMetrics:
    """Metrics of one run. Within a `with` block, gauges keep their value until it changes.

    Args:
        labels: labels of all metrics, e.g. `run`.
    """

    def __init__(self, **labels: str) -> None:
        self._labels = labels
        self._exports = collects_metrics()
        self._ray_metrics: dict[Metric, Any] = {}
        self._gauges: dict[tuple[Metric, _Labels], float] = {}
        self._lock = threading.Lock()  # a repeated value must not replace a newer one
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat_gauges, name="job-metrics", daemon=True)

    def __enter__(self) -> JobMetrics:
        if self._exports:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._has_ended.set()
        if self._exports:
            self._thread.join()  # no thread may call Ray after its shutdown

    def set(self, metric: Metric, value: float, /, **labels: str) -> None:
        """Set a gauge. Values that are not finite are left out: Ray would drop them, too."""
        if self._exports and math.isfinite(value):
            labels = {**self._labels, **labels}
            with self._lock:
                self._gauges[metric, tuple(labels.items())] = value
                self._ray_metric(metric).set(value, labels)

    def add(self, metric: Metric, count: float, /, **labels: str) -> None:
        """Increase a counter. A count of 0 changes nothing: Ray refuses to add 0."""
        if self._exports and count > 0:
            self._ray_metric(metric).inc(count, {**self._labels, **labels})

    def _repeat_gauges(self) -> None:
        while not self._has_ended.wait(_REPEAT_SECONDS):
            with self._lock:
                for (metric, labels), value in self._gauges.items():
                    self._ray_metric(metric).set(value, dict(labels))

    def _ray_metric(self, metric: Metric) -> Any:
        if metric not in self._ray_metrics:
            from ray.util import metrics  # Ray is optional, and imported where `_exports` is true

            kind = {"counter": metrics.Counter, "gauge": metrics.Gauge}[metric.kind]
            self._ray_metrics[metric] = kind(
                PREFIX + metric.name, metric.text, tag_keys=metric.labels
            )
        return self._ray_metrics[metric]
