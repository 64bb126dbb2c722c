"""A sweep's Optuna study: its storage, its owner, its sampler, and what earlier sweeps tell it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from finsent.errors import ConfigError, InputError
from tune.config import SweepConfig
from tune.records import Sweep
from tune.space import Space, check_point, encoded
from tune.storage import shown, without_secrets
from tune.trial_outcome import recorded, tell

_LOCK_SECONDS = 5  # that a locked SQLite file is waited for
STUDY = "study.db"
_OWNER = "sweep"  # the study's attribute that says whose it is


def storage_url(config: SweepConfig, run_dir: Path) -> str:
    """Where the study lies, as Optuna and optuna-dashboard take it."""
    return config.storage or f"sqlite:///{run_dir / STUDY}"


def open_study(config: SweepConfig, run_dir: Path, trials_before: int = 0) -> optuna.Study:
    """The sweep's study, which may hold trials already.

    Args:
        trials_before: which the sweep has; a sampler that goes on must not draw the same again.

    Raises:
        InputError: the storage cannot be reached, is locked, or the study has other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(config, run_dir)
    directions: list[Any] = [
        "maximize" if mode == "max" else "minimize" for mode in config.modes.values()
    ]
    timeout = {"connect_args": {"timeout": _LOCK_SECONDS}} if url.startswith("sqlite:") else {}
    try:
        study = optuna.create_study(
            storage=RDBStorage(url, engine_kwargs=timeout),
            study_name=config.study or run_dir.name,
            sampler=sampler_of(config, trials_before),
            directions=directions,
            load_if_exists=True,
        )
        study.set_user_attr("finsent", "sweep")  # a locked file is only noticed when written to
    except Exception as error:  # SQLAlchemy's, a driver's or a missing driver's, of many classes
        problem = without_secrets(" ".join(str(error).split()), url)[:200]
        raise InputError(
            f"sweep.storage={shown(url)!r}: Optuna cannot use it ({problem}); close "
            "what holds it, or name one that can be reached"
        ) from None
    found = [direction.name for direction in study.directions]
    if [name.lower() for name in found] != directions:
        raise InputError(
            f"sweep.study={study.study_name!r}: exists with other objectives ({', '.join(found)}); "
            "choose another name"
        )
    return study


def claim(study: optuna.Study, sweep: str | None) -> None:
    """Make sure that a study is a sweep's own: two would end each other's trials.

    Args:
        sweep: its name and when it began; None: it is about to.

    Raises:
        InputError: the study holds another sweep's trials.
    """
    owner = study.user_attrs.get(_OWNER)
    if owner is None and (sweep is not None or not study.get_trials(deepcopy=False)):
        if sweep is not None:
            study.set_user_attr(_OWNER, sweep)
        return
    if owner is None or owner != sweep:
        raise InputError(
            f"sweep.study={study.study_name!r}: holds the trials of another sweep "
            f"({owner or 'unknown'}); choose another name, and give that sweep's directory in "
            "sweep.warm_start to know its trials"
        )


def sampler_of(config: SweepConfig, trials_before: int) -> BaseSampler:
    """Optuna's sampler of a search, seeded."""
    seed = config.seed + trials_before
    # `group`, without which conditional parameters are drawn each for itself, is experimental.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if config.search == "tpe":
        # Optuna draws the first ten at random, which of twelve are nearly all.
        random_first = min(10, max(4, config.trials // 4))
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=random_first,
        )
    if config.search == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if config.search == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, consider_pruned_trials=True)
    return optuna.samplers.RandomSampler(seed=seed)


def check_search(config: SweepConfig, space: Space) -> None:
    """What a search cannot do with a space.

    Raises:
        ConfigError: one line that says so.
    """
    conditional = [one.key for one in space.parameters if one.parent is not None]
    choices = [one.key for one in space.parameters if one.kind == "choice"]
    if config.search == "grid":
        next(iter(space.grid()))
    if config.search == "cmaes" and (conditional or choices):
        raise ConfigError(
            f"sweep.search='cmaes': takes numbers without conditions only, not "
            f"{(conditional or choices)[0]}; set sweep.search=tpe"
        )
    if config.search == "cmaes" and len(space.parameters) < 2:
        raise ConfigError(
            "sweep.search='cmaes': wants two parameters or more; set sweep.search=tpe"
        )
    if config.scheduler == "pbt" and conditional:
        raise ConfigError(
            f"sweep.space.{conditional[0]}: scheduler=pbt cannot vary a setting that depends on "
            "another; take the condition away, or set sweep.scheduler=asha"
        )
    for params in config.known:
        check_point(space, params, "sweep.known")


def distributions(space: Space, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the parameters that a configuration has."""
    found: dict[str, BaseDistribution] = {}
    for one in space.parameters:
        if one.key not in params:
            continue
        if one.kind == "choice":
            found[one.key] = CategoricalDistribution([encoded(c) for c in one.choices])
        elif one.kind == "int":
            found[one.key] = IntDistribution(int(one.low), int(one.high))
        else:
            log = one.kind == "loguniform"
            found[one.key] = FloatDistribution(one.low, one.high, log=log, step=one.step)
    return found


def add_past(study: optuna.Study, space: Space, sweep: Sweep, config: SweepConfig) -> int:
    """Tell a study what an earlier sweep found; trials that lie outside the space are left out.

    Trials that finished, and those to keep away from, count.

    Returns:
        How many trials it now knows more of. None where it knows them already.
    """
    trials = study.get_trials(deepcopy=False)
    # A trial that a killed process added and did not tell is added again.
    told = (TrialState.COMPLETE, TrialState.PRUNED)
    known = {trial.user_attrs.get("from") for trial in trials if trial.state in told}
    added = 0
    for past in sweep.trials:
        origin = f"{sweep.run_dir}#{past.number}"
        outcome = recorded(past, config)
        teaches = outcome is not None and (outcome.values or outcome.cause)
        if outcome is None or not teaches or origin in known:
            continue
        try:
            check_point(space, past.params, "")
        except ConfigError:
            continue
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params={key: encoded(value) for key, value in past.params.items()},
                distributions=distributions(space, past.params),
                user_attrs={"from": origin},
            )
        )
        newest = study.get_trials(deepcopy=False)[-1]
        tell(study, optuna.Trial(study, newest._trial_id), outcome, config)
        added += 1
    return added
