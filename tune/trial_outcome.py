"""The outcome of a configuration, as an Optuna study learns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optuna.trial import TrialState

from tune.config import SweepConfig
from tune.records import Trial
from tune.trial_events import CAUSES, DIVERGED
from tune.trial_report import TrialReport, is_finite


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial."""

    state: TrialState
    values: list[float] | None = None  # by objective, of a finished trial
    epochs: Mapping[int, float] = field(default_factory=dict)  # the metric after each epoch
    cause: str | None = None  # of `tune.trial_events.CAUSES`


FAILED = Outcome(TrialState.FAIL)


def failed_outcome(cause: str | None) -> Outcome:
    """Return the outcome of a failed trial; only the causes in CAUSES teach the search."""
    return Outcome(TrialState.PRUNED, cause=cause) if cause in CAUSES else FAILED


def recorded_outcome(trial: Trial, config: SweepConfig) -> Outcome | None:
    """Return the outcome of a trial of the records; None for a trial that will resume."""
    if trial.status in ("running", "interrupted"):
        return None
    if trial.status in ("failed", DIVERGED):
        return failed_outcome(trial.cause)
    values = [trial.values[name] for name in config.modes if name in trial.values]
    if trial.status == "finished" and len(values) == len(config.modes):
        return Outcome(TrialState.COMPLETE, values)
    epochs = {e.epoch: e.metrics[config.metric] for e in trial.epochs if config.metric in e.metrics}
    return Outcome(TrialState.PRUNED, epochs=epochs)


def reported_outcome(
    report: TrialReport, epochs: Mapping[int, float], config: SweepConfig
) -> Outcome:
    """Return the outcome of a trial by its last report.

    Args:
        epochs: the metric after each epoch, as the study has it.
    """
    if report.failure is not None:
        return failed_outcome(report.cause)
    final = report.final or {}
    values = [final.get(name) for name in config.modes]
    if all(map(is_finite, values)):
        return Outcome(TrialState.COMPLETE, [value for value in values if is_finite(value)])
    if config.objectives:
        return FAILED
    return Outcome(TrialState.PRUNED, epochs=dict(epochs))
