"""Which parameters matter, and which trials no other one beats: by Optuna, from the records."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from tune.records import Objective, Sweep, Trial
from tune.stats import Axis, axis_of, ended, score, text

FRONT = "Pareto front"  # in the place of an objective: what it takes to reach the front
_LEAST = 10  # trials; below, any ranking is chance
_TRUSTED = 50  # trials: PED-ANOVA wants five among the best tenth
_BEST = 5  # trials that make up "good" at least
_SHUFFLES = 20
_CHANCE = 0.9  # quantile of the shuffles
_COLUMNS = ["parameter", "objective", "importance", "chance", "trials"]


@dataclass(frozen=True)
class Importances:
    """How much each parameter decides whether a trial is among the best."""

    table: pd.DataFrame  # columns as _COLUMNS, the most important first for each objective
    trials: int
    note: str  # how far to trust them; "" where there are enough trials

    def order(self, objective: str) -> list[str]:
        """Parameters of an objective, the most important first; empty where none is known."""
        return list(self.table[self.table["objective"] == objective]["parameter"])


def importances(sweep: Sweep) -> Importances:
    """PED-ANOVA importances of each objective, and of reaching the Pareto front where several.

    Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces" (IJCAI 2023), with conditional parameters as in "Conditional PED-ANOVA" (2026), both
    in Optuna. Good are the best tenth of the trials, or the best five where those are more.
    `importance` sums to 1 for an objective. `chance` is what a parameter reaches, on the same
    scale, when the values are dealt to the trials at random: the 90th percentile of 20 shuffles
    (Altmann et al., "Permutation importance: a corrected feature importance measure", 2010). An
    importance below it says nothing.

    Only trials that finished or were stopped count. A stopped trial counts with what it had
    reached, so a parameter that makes learning slow at first looks worse than it is.
    """
    targets: list[tuple[str, list[Objective]]] = [(o.name, [o]) for o in sweep.objectives]
    if len(sweep.objectives) > 1:
        targets.append((FRONT, list(sweep.objectives)))
    count = len(ended(sweep, sweep.objectives))
    rows: list[tuple[Any, ...]] = []
    if count >= _LEAST:
        for name, objectives in targets:
            rows += _rows(sweep, name, objectives)
    if count < _LEAST:
        trials = "trial" if count == 1 else "trials"
        note = (
            f"{count} {trials} ended with a value: too few to say what matters ({_LEAST} at least)"
        )
    elif not rows:
        note = "no parameter took two values, or all trials are alike: nothing to compare"
    elif count < _TRUSTED:
        note = (
            f"{count} trials ended with a value: a hint, not a finding; with {_TRUSTED} the best "
            "tenth holds the five trials that the method wants"
        )
    else:
        note = ""
    return Importances(pd.DataFrame(rows, columns=_COLUMNS), count, note)


def _rows(sweep: Sweep, name: str, objectives: list[Objective]) -> list[tuple[Any, ...]]:
    trials = ended(sweep, objectives)
    frozen = _frozen(sweep, trials, objectives)
    found = _divergences(frozen, objectives)
    total = sum(found.values())
    if total <= 0:
        return []
    values = [trial.values for trial in frozen]
    random = np.random.default_rng(0)
    shuffled = []
    for _ in range(_SHUFFLES):
        for trial, place in zip(frozen, random.permutation(len(frozen)), strict=True):
            trial.values = values[place]
        shuffled.append(_divergences(frozen, objectives))
    rows = []
    for key, value in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        chance = float(np.quantile([each.get(key, 0.0) for each in shuffled], _CHANCE))
        having = sum(key in trial.params for trial in trials)
        rows.append((key, name, value / total, chance / total, having))
    return rows


def _divergences(
    trials: list[optuna.trial.FrozenTrial], objectives: Sequence[Objective]
) -> dict[str, float]:
    """By parameter, how far good trials' values differ from all trials' (0: not at all).

    Empty where all values are the same or nothing varies.
    """
    if len({tuple(trial.values) for trial in trials}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, _BEST / len(trials))
    )
    with _quiet():
        found = optuna.importance.get_param_importances(
            _study(trials, objectives), evaluator=evaluator, normalize=False
        )
    return {key: float(value) for key, value in found.items() if np.isfinite(value)}


def pareto_front(sweep: Sweep) -> list[int]:
    """Numbers of the trials that no other one beats in all objectives, by the first objective."""
    trials = ended(sweep, sweep.objectives)
    if not trials:
        return []
    with _quiet():
        study = _study(_frozen(sweep, trials, sweep.objectives), sweep.objectives)
        best = {trial.user_attrs["trial"] for trial in study.best_trials}
    first = sweep.objectives[0]
    kept = [trial for trial in trials if trial.number in best]
    return [t.number for t in sorted(kept, key=lambda t: (score(t, first), t.number))]


# --- studies ------------------------------------------------------------------------------------


def _study(trials: list[optuna.trial.FrozenTrial], objectives: Sequence[Objective]) -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize" if each.mode == "max" else "minimize" for each in objectives]
    )
    study.add_trials(trials)
    return study


def _frozen(
    sweep: Sweep, trials: list[Trial], objectives: Sequence[Objective]
) -> list[optuna.trial.FrozenTrial]:
    """Trials as Optuna's, over the space that holds every value seen; number in `user_attrs`."""
    axes = {key: axis_of(sweep, key) for key in {k for trial in trials for k in trial.params}}
    kinds = {key: _distribution(sweep, axis) for key, axis in axes.items()}
    return [
        optuna.trial.create_trial(
            params={
                key: text(value) if axes[key].categories else value
                for key, value in trial.params.items()
            },
            distributions={key: kinds[key] for key in trial.params},
            values=[score(trial, each) or 0.0 for each in objectives],
            user_attrs={"trial": trial.number},
        )
        for trial in trials
    ]


def _distribution(sweep: Sweep, axis: Axis) -> BaseDistribution:
    if axis.categories:
        return CategoricalDistribution(axis.categories)
    whole = sweep.space.get(axis.key, {}).get("kind") == "int"
    if whole and axis.low == int(axis.low) and axis.high == int(axis.high):
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)  # a step may not fit known points


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study that it creates."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
