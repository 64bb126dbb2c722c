"""Importances of the parameters, and the Pareto front: by Optuna, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from finsent.adapters.optuna import silenced
from tune.records import Objective, Sweep, Trial
from tune.stats import Axis, axis_of, format_value, score, trials_with_values

FRONT = "Pareto front"  # the objective of reaching the front
_MIN_TRIALS = 10  # with fewer any ranking is chance
_TRUSTED_TRIALS = 50  # PED-ANOVA needs five trials in the best tenth
_MIN_GOOD = 5  # trials that count as good
_SHUFFLES = 20
_CHANCE_QUANTILE = 0.9  # of the shuffles
_COLUMNS = ["parameter", "objective", "importance", "chance", "trials"]


@dataclass(frozen=True)
class Importances:
    """Influence of each parameter on whether a trial is among the best."""

    table: pd.DataFrame  # columns as _COLUMNS, the most important first for each objective
    trials: int
    note: str  # why not to trust the importances; "" with enough trials

    def order(self, objective: str) -> list[str]:
        """Return an objective's parameters, the most important first."""
        return list(self.table[self.table["objective"] == objective]["parameter"])


def importances(sweep: Sweep) -> Importances:
    """Return PED-ANOVA importances of each objective, and with several of reaching the front.

    Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces" (IJCAI 2023), with conditional parameters as in "Conditional PED-ANOVA" (2026), both
    in Optuna. The best tenth of the trials, or the best five where those are more, count as good.
    `importance` sums to 1 for an objective. `chance` is the importance of a parameter, on the same
    scale, when the values are shuffled between the trials: the 90th percentile of 20 shuffles
    (Altmann et al., "Permutation importance: a corrected feature importance measure", 2010). An
    importance below its chance has no meaning.

    Only trials that finished or were stopped count. A stopped trial counts with its last value, so
    a parameter that makes learning slow at first looks worse than it is.
    """
    targets: list[tuple[str, list[Objective]]] = [(o.name, [o]) for o in sweep.objectives]
    if len(sweep.objectives) > 1:
        targets.append((FRONT, list(sweep.objectives)))
    count = len(trials_with_values(sweep, sweep.objectives))
    rows: list[tuple[Any, ...]] = []
    if count >= _MIN_TRIALS:
        for name, objectives in targets:
            rows += _rows(sweep, name, objectives)
    note = _note(count, has_rows=bool(rows))
    return Importances(pd.DataFrame(rows, columns=_COLUMNS), count, note)


def _note(count: int, *, has_rows: bool) -> str:
    """Return why not to trust the importances of a number of trials."""
    if count < _MIN_TRIALS:
        trials = "trial" if count == 1 else "trials"
        return (
            f"{count} {trials} ended with a value: too few for importances, which need "
            f"{_MIN_TRIALS} at least"
        )
    if not has_rows:
        return "no parameter took two values, or all trials are alike: nothing to compare"
    if count < _TRUSTED_TRIALS:
        return (
            f"{count} trials ended with a value: a hint, not a finding; with {_TRUSTED_TRIALS} "
            "the best tenth has the five trials that the method needs"
        )
    return ""


def _rows(sweep: Sweep, name: str, objectives: list[Objective]) -> list[tuple[Any, ...]]:
    trials = trials_with_values(sweep, objectives)
    frozen = _frozen(sweep, trials, objectives)
    divergences = _divergences(frozen, objectives)
    total = sum(divergences.values())
    if total <= 0:
        return []
    values = [trial.values for trial in frozen]
    random = np.random.default_rng(0)
    shuffled = []
    for _ in range(_SHUFFLES):
        for trial, index in zip(frozen, random.permutation(len(frozen)), strict=True):
            trial.values = values[index]
        shuffled.append(_divergences(frozen, objectives))
    rows = []
    for key, value in sorted(divergences.items(), key=lambda item: (-item[1], item[0])):
        chance = float(
            np.quantile([shuffle.get(key, 0.0) for shuffle in shuffled], _CHANCE_QUANTILE)
        )
        trial_count = sum(key in trial.params for trial in trials)
        rows.append((key, name, value / total, chance / total, trial_count))
    return rows


def _divergences(
    trials: list[optuna.trial.FrozenTrial], objectives: Sequence[Objective]
) -> dict[str, float]:
    """Return by parameter how far the values of good trials differ from those of all (0: equal).

    Empty where all trials have the same value, or no parameter varies.
    """
    if len({tuple(trial.values) for trial in trials}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, _MIN_GOOD / len(trials))
    )
    with silenced():
        importance = optuna.importance.get_param_importances(
            _study(trials, objectives), evaluator=evaluator, normalize=False
        )
    return {key: float(value) for key, value in importance.items() if np.isfinite(value)}


def pareto_front(sweep: Sweep) -> list[int]:
    """Return the numbers of the trials of the Pareto front, in the order of the first objective."""
    trials = trials_with_values(sweep, sweep.objectives)
    if not trials:
        return []
    with silenced():
        study = _study(_frozen(sweep, trials, sweep.objectives), sweep.objectives)
        best = {trial.user_attrs["trial"] for trial in study.best_trials}
    objective = sweep.objectives[0]
    front = [trial for trial in trials if trial.number in best]
    return [t.number for t in sorted(front, key=lambda t: (score(t, objective), t.number))]


# --- studies ------------------------------------------------------------------------------------


def _study(trials: list[optuna.trial.FrozenTrial], objectives: Sequence[Objective]) -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize" if o.mode == "max" else "minimize" for o in objectives]
    )
    study.add_trials(trials)
    return study


def _frozen(
    sweep: Sweep, trials: list[Trial], objectives: Sequence[Objective]
) -> list[optuna.trial.FrozenTrial]:
    """Return trials as Optuna's, with their numbers, over a space that contains every value."""
    axes = {key: axis_of(sweep, key) for key in {k for trial in trials for k in trial.params}}
    by_key = {key: _distribution(sweep, axis) for key, axis in axes.items()}
    return [
        optuna.trial.create_trial(
            params={
                key: format_value(value) if axes[key].categories else value
                for key, value in trial.params.items()
            },
            distributions={key: by_key[key] for key in trial.params},
            values=[score(trial, objective) or 0.0 for objective in objectives],
            user_attrs={"trial": trial.number},
        )
        for trial in trials
    ]


def _distribution(sweep: Sweep, axis: Axis) -> BaseDistribution:
    if axis.categories:
        return CategoricalDistribution(axis.categories)
    record = sweep.space.get(axis.key)
    is_int = record is not None and record.kind == "int"
    if is_int and axis.low == int(axis.low) and axis.high == int(axis.high):
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)  # known points may be between steps
