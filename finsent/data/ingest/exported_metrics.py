"""Metrics of an ingest in Prometheus, from the driver."""

from __future__ import annotations

from collections import Counter

from finsent import metric_list
from finsent.data.ingest.task_results import ScanResult
from finsent.data.versions.manifest import FateCounts
from finsent.job_metrics import JobMetrics

_FATES = ("kept", "duplicates", "conflicts", "excluded")  # of valid rows
_NO_REASON = "none"


class IngestMetrics:
    """Exports the rows of an ingest's labeled sources.

    Args:
        metrics: of the dataset.
    """

    def __init__(self, metrics: JobMetrics) -> None:
        self._metrics = metrics
        self._rows = 0
        self._rejected = Counter({_NO_REASON: 0})  # so that a ratio to all rows has a value

    def scanned(self, result: ScanResult) -> None:
        """Add the rows of a block, and those that were rejected."""
        self._rows += result.rows
        self._metrics.set(metric_list.INGEST_ROWS, self._rows)
        self._rejected.update({reason: block.rows for reason, block in result.rejected.items()})
        for reason, rows in self._rejected.items():
            self._metrics.set(metric_list.INGEST_REJECTED, rows, reason=reason)

    def settled(self, counts: FateCounts) -> None:
        """Export the valid rows by fate."""
        for fate in _FATES:
            self._metrics.set(metric_list.INGEST_SETTLED, getattr(counts, fate), fate=fate)
