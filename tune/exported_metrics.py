"""Metrics of a sweep in Prometheus, from the driver."""

from __future__ import annotations

from finsent import metric_list
from finsent.job_metrics import JobMetrics
from tune.progress import SweepBar
from tune.trial_events import EpochEnded, Event, TrialEnded


class SweepMetrics:
    """Exports trials, epochs and the best value of a sweep.

    Args:
        metrics: of the run.
        objective: `sweep.metric`.
    """

    def __init__(self, metrics: JobMetrics, objective: str) -> None:
        self._metrics, self._objective = metrics, objective

    def on_event(self, event: Event, bar: SweepBar) -> None:
        """Export the state after an event.

        Args:
            bar: has counted the event.
        """
        if isinstance(event, EpochEnded):
            self._metrics.add(metric_list.SWEEP_EPOCHS, 1)
        elif isinstance(event, TrialEnded):
            self._metrics.add(metric_list.SWEEP_TRIALS, 1, status=event.status)
        self._metrics.set(metric_list.SWEEP_RUNNING, bar.running_trials)
        if bar.best_value is not None:
            self._metrics.set(metric_list.SWEEP_BEST, bar.best_value, objective=self._objective)
