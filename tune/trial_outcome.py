"""What became of a configuration, and how an Optuna study is told of it.

A trial that diverged or ran out of memory is told as one to keep away from. Told as failed, it
would teach nothing: Optuna's samplers learn from complete and pruned trials only, and NaN counts as
failed (its FAQ; github.com/optuna/optuna/issues/2864 names a bad value as the remedy). TPE knows
infeasible trials, which it ranks behind all others, also with several objectives. The Gaussian
process and CMA-ES want a value: the worst that was seen, so that the scale of the others stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import optuna
from optuna.trial import TrialState

from tune.config import UNLEARNED, SweepConfig
from tune.records import DIVERGED, MEMORY, Trial

FINAL = "final"  # key of a finished trial's values in its last report
FAILURE = "failure"  # key of why a trial failed
CAUSE = "cause"  # key of what kind of failure that was, where the settings are at fault
FULL = "full"  # key of the plain form of the `DiskError` of a trial that could not write

_AVOIDED = (DIVERGED, MEMORY)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: TrialState
    values: list[float] | None = None  # by objective, of a finished trial
    epochs: Mapping[int, float] = field(default_factory=dict)  # the metric after each
    cause: str | None = None  # of `tune.records.CAUSES`


FAILED = Outcome(TrialState.FAIL)


def failure(cause: str | None) -> Outcome:
    """The outcome of a trial that failed; other causes than the settings teach nothing."""
    return Outcome(TrialState.PRUNED, cause=cause) if cause in _AVOIDED else FAILED


def recorded(trial: Trial, config: SweepConfig) -> Outcome | None:
    """The outcome of a trial of the records; None where it goes on."""
    values = [trial.values.get(name) for name in config.modes]
    if trial.status in ("running", "interrupted"):
        return None
    if trial.status in ("failed", DIVERGED):
        return failure(trial.cause)
    if trial.status == "finished" and None not in values:
        return Outcome(TrialState.COMPLETE, [v for v in values if v is not None])
    epochs = {e.epoch: e.metrics[config.metric] for e in trial.epochs if config.metric in e.metrics}
    return Outcome(TrialState.PRUNED, epochs=epochs)


def tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, config: SweepConfig) -> None:
    """Tell a study how a trial ended, or how the one did that had the same configuration."""
    if outcome.cause is None:
        known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for epoch in outcome.epochs.keys() - known.keys() if not config.objectives else ():
            trial.report(outcome.epochs[epoch], epoch)
        study.tell(trial.number, outcome.values, outcome.state)
    elif config.search in ("gp", "cmaes"):
        study.tell(trial.number, bad_value(study, config), TrialState.COMPLETE)
    else:
        trial.set_constraint(outcome.cause, 1.0)
        study.tell(trial.number, state=TrialState.PRUNED)


def bad_value(study: optuna.Study, config: SweepConfig) -> float:
    """A value of the metric that no trial falls below, nor a model that has learned nothing."""
    values = [UNLEARNED[config.metric]]
    for trial in study.get_trials(deepcopy=False):
        values.extend((*(trial.values or ()), *trial.intermediate_values.values()))
    values = [value for value in values if finite(value)]
    return min(values) if config.mode == "max" else max(values)


def finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
