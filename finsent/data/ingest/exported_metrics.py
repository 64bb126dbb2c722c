"""Metrics of an ingest in Prometheus, from the driver."""

from __future__ import annotations

from finsent import metric_list
from finsent.data.ingest.task_results import ScanResult
from finsent.data.versions.manifest import FateCounts
from finsent.job_metrics import JobMetrics

_FATES = ("kept", "duplicates", "conflicts", "excluded")  # of valid rows


class IngestMetrics:
    """Exports the rows of an ingest's labeled sources.

    Args:
        dataset: `data.name`.
    """

    def __init__(self, dataset: str) -> None:
        self._metrics = JobMetrics(dataset=dataset)

    def scanned(self, result: ScanResult) -> None:
        """Count the rows of a block, and those that were rejected."""
        self._metrics.add(metric_list.INGEST_ROWS, result.rows)
        for reason, block in result.rejected.items():
            self._metrics.add(metric_list.INGEST_REJECTED, block.rows, reason=reason)

    def settled(self, counts: FateCounts) -> None:
        """Count the valid rows by fate."""
        for fate in _FATES:
            self._metrics.add(metric_list.INGEST_FATES, getattr(counts, fate), fate=fate)
