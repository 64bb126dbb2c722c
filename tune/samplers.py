"""Optuna's samplers, one function per search algorithm of `tune.algorithms`."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from finsent.adapters.optuna import allow_experimental
from finsent.errors import ConfigError
from tune.algorithms import SEARCH_ALGORITHMS
from tune.config import SweepConfig
from tune.space import Space
from tune.space_parser import check_configuration


def make_sampler(config: SweepConfig, trials_before: int) -> BaseSampler:
    """Return the seeded sampler of a sweep's search algorithm.

    Args:
        trials_before: existing trials of the sweep; a resumed sampler must not draw them again.
    """
    allow_experimental()
    factory: Callable[[SweepConfig, int], Any] = resolve_name(
        SEARCH_ALGORITHMS[config.search].sampler
    )
    sampler: BaseSampler = factory(config, config.seed + trials_before)
    return sampler


def tpe(config: SweepConfig, seed: int) -> BaseSampler:
    """Return the tree-structured Parzen estimator."""
    # By default the first ten configurations are random, which of twelve are nearly all.
    random_trials = min(10, max(4, config.trials // 4))
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        constant_liar=True,
        n_startup_trials=random_trials,
    )


def gaussian_process(config: SweepConfig, seed: int) -> BaseSampler:  # noqa: ARG001
    """Return the Gaussian process."""
    return optuna.samplers.GPSampler(seed=seed)


def cma_es(config: SweepConfig, seed: int) -> BaseSampler:  # noqa: ARG001
    """Return CMA-ES, which also learns from stopped trials."""
    return optuna.samplers.CmaEsSampler(seed=seed, consider_pruned_trials=True)


def uniform(config: SweepConfig, seed: int) -> BaseSampler:  # noqa: ARG001
    """Return the random sampler."""
    return optuna.samplers.RandomSampler(seed=seed)


def check_search(config: SweepConfig, space: Space) -> None:
    """Check that the search algorithm and the scheduler support a space.

    Raises:
        ConfigError: one line that names the key.
    """
    algorithm = SEARCH_ALGORITHMS[config.search]
    conditional = [parameter.key for parameter in space.parameters if parameter.parent is not None]
    choices = [parameter.key for parameter in space.parameters if parameter.kind == "choice"]
    if algorithm.is_exhaustive:
        next(iter(space.grid()))
    if algorithm.numbers_only and (conditional or choices):
        raise ConfigError(
            f"sweep.search={config.search!r}: supports numbers without conditions only, and not "
            f"{(conditional or choices)[0]}. Set sweep.search=tpe."
        )
    if algorithm.numbers_only and len(space.parameters) < 2:
        raise ConfigError(
            f"sweep.search={config.search!r}: needs two parameters or more. Set sweep.search=tpe."
        )
    if config.exchanges_weights and conditional:
        raise ConfigError(
            f"sweep.space.{conditional[0]}: scheduler={config.scheduler} cannot vary a setting "
            "that depends on another. Remove the condition, or set sweep.scheduler=asha."
        )
    for configuration in config.known:
        check_configuration(space, configuration, "sweep.known")
