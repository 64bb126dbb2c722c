"""The search algorithms and schedulers of a sweep: one table each.

To add one: add its name to the `Literal`, its row to the table, and the function that the row names
to `tune/samplers.py` (search algorithms) or `tune/schedulers.py`. `--help`, the checks of settings
and the search read the rest from the row.

This module imports neither Ray nor Optuna: every job reads it with the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SearchName = Literal["tpe", "gp", "cmaes", "random", "grid"]
SchedulerName = Literal["asha", "hyperband", "median", "pbt", "none"]


@dataclass(frozen=True)
class SearchAlgorithm:
    """A way to choose the next configuration."""

    summary: str  # in --help
    sampler: str  # MODULE:FUNCTION, `(SweepConfig, seed) -> optuna.samplers.BaseSampler`
    single_objective: bool = False
    numbers_only: bool = False  # neither choices nor conditions, and two parameters at least
    needs_values: bool = False  # learns nothing from constraints: a diverged trial gets a bad value
    is_exhaustive: bool = False  # tries each configuration of a countable space once, in order


SEARCH_ALGORITHMS: dict[SearchName, SearchAlgorithm] = {
    "tpe": SearchAlgorithm("tree-structured Parzen estimator", "tune.samplers:tpe"),
    "gp": SearchAlgorithm(
        "Gaussian process (one objective)",
        "tune.samplers:gaussian_process",
        single_objective=True,
        needs_values=True,
    ),
    "cmaes": SearchAlgorithm(
        "CMA-ES (one objective, numbers only)",
        "tune.samplers:cma_es",
        single_objective=True,
        numbers_only=True,
        needs_values=True,
    ),
    "random": SearchAlgorithm("at random", "tune.samplers:uniform"),
    "grid": SearchAlgorithm("each combination once", "tune.samplers:uniform", is_exhaustive=True),
}


@dataclass(frozen=True)
class Scheduler:
    """A way to end trials early."""

    summary: str  # in --help
    factory: str  # MODULE:FUNCTION, `(SchedulerRequest) -> ray.tune.schedulers.TrialScheduler`
    stops_trials: bool = True  # a stopped trial has no value of the further objectives
    is_halving: bool = False  # compares epochs across trials: resumes and its cost are replays
    is_population: bool = False  # trials take over weights and settings of others (PBT)


SCHEDULERS: dict[SchedulerName, Scheduler] = {
    "asha": Scheduler(
        "asynchronous successive halving", "tune.schedulers:halving", is_halving=True
    ),
    "hyperband": Scheduler("HyperBand", "tune.schedulers:hyperband", is_halving=True),
    "median": Scheduler("trials below the median end", "tune.schedulers:median"),
    "pbt": Scheduler(
        "population-based training: the worst quarter takes over weights and settings of the best, "
        "and varies the settings",
        "tune.schedulers:population",
        is_population=True,
    ),
    "none": Scheduler("no trial ends early", "tune.schedulers:none", stops_trials=False),
}


def summaries(table: dict[SearchName, SearchAlgorithm] | dict[SchedulerName, Scheduler]) -> str:
    """Return the help text of a table."""
    return "; ".join(f"{name}: {row.summary}" for name, row in table.items())
