"""A sweep's Optuna study: its storage, its owner, and the outcomes that it learns from."""

from __future__ import annotations

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
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from finsent.adapters.optuna import prune_as_infeasible, reopen_trial
from finsent.errors import ConfigError, InputError
from tune.algorithms import SEARCH_ALGORITHMS
from tune.config import UNLEARNED, SweepConfig
from tune.records import Sweep
from tune.samplers import make_sampler
from tune.space import Space, encode
from tune.space_parser import check_configuration
from tune.storage import masked_url, without_secrets
from tune.trial_outcome import Outcome, recorded_outcome
from tune.trial_report import is_finite

STUDY_FILE = "study.db"
_LOCK_TIMEOUT = 5  # seconds to wait for a locked SQLite file
_OWNER = "sweep"  # the study's attribute with the sweep that owns it
_ORIGIN = "from"  # a trial's attribute with the trial of an earlier sweep


def storage_url(config: SweepConfig, run_dir: Path) -> str:
    """Return the URL of the study's storage, as Optuna and optuna-dashboard accept it."""
    return config.storage or f"sqlite:///{run_dir / STUDY_FILE}"


def open_study(config: SweepConfig, run_dir: Path, trials_before: int = 0) -> optuna.Study:
    """Create or open the sweep's study.

    Args:
        trials_before: trials that the sweep has; a resumed sampler must not draw them again.

    Raises:
        InputError: the storage cannot be reached, is locked, or the study has other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(config, run_dir)
    directions: list[Any] = [
        "maximize" if mode == "max" else "minimize" for mode in config.modes.values()
    ]
    timeout = {"connect_args": {"timeout": _LOCK_TIMEOUT}} if url.startswith("sqlite:") else {}
    try:
        study = optuna.create_study(
            storage=RDBStorage(url, engine_kwargs=timeout),
            study_name=config.study or run_dir.name,
            sampler=make_sampler(config, trials_before),
            directions=directions,
            load_if_exists=True,
        )
        study.set_user_attr("finsent", "sweep")  # a lock shows only when something is written
    except Exception as error:  # SQLAlchemy's, a driver's or a missing driver's, of many classes
        problem = without_secrets(" ".join(str(error).split()), url)[:200]
        raise InputError(
            f"sweep.storage={masked_url(url)!r}: Optuna cannot use it ({problem}). Close the "
            "program that holds it, or name a storage that can be reached."
        ) from None
    existing = [direction.name for direction in study.directions]
    if [name.lower() for name in existing] != directions:
        raise InputError(
            f"sweep.study={study.study_name!r}: exists with other objectives "
            f"({', '.join(existing)}). Choose another name."
        )
    return study


def claim_study(study: optuna.Study, sweep: str | None) -> None:
    """Make a study a sweep's own: two sweeps in a study would end each other's trials.

    Args:
        sweep: the sweep's name and start; None for a sweep that has not started yet.

    Raises:
        InputError: the study has another sweep's trials.
    """
    owner = study.user_attrs.get(_OWNER)
    if owner is None and (sweep is not None or not study.get_trials(deepcopy=False)):
        if sweep is not None:
            study.set_user_attr(_OWNER, sweep)
        return
    if owner is None or owner != sweep:
        raise InputError(
            f"sweep.study={study.study_name!r}: has the trials of another sweep "
            f"({owner or 'unknown'}). Choose another name, and add that sweep's directory to "
            "sweep.warm_start to learn from its trials."
        )


# --- outcomes ------------------------------------------------------------------------------------


def tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, config: SweepConfig) -> None:
    """End a trial of a study by its outcome, or by that of an earlier equal configuration.

    A trial that diverged or ran out of memory becomes a trial to avoid. As a failed trial it would
    teach nothing: Optuna's samplers learn from complete and pruned trials only, and NaN counts as
    failed (Optuna's FAQ; github.com/optuna/optuna/issues/2864 recommends a bad value). TPE knows
    infeasible trials, which rank behind all others, also with several objectives. The Gaussian
    process and CMA-ES need a value: they get the worst value so far, which keeps the scale.
    """
    if outcome.cause is None:
        reported = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for epoch in outcome.epochs.keys() - reported.keys() if not config.objectives else ():
            trial.report(outcome.epochs[epoch], epoch)
        study.tell(trial.number, outcome.values, outcome.state)
    elif SEARCH_ALGORITHMS[config.search].needs_values:
        study.tell(trial.number, bad_value(study, config), TrialState.COMPLETE)
    else:
        prune_as_infeasible(study, trial, outcome.cause)


def bad_value(study: optuna.Study, config: SweepConfig) -> float:
    """Return a value of the metric that is as bad as the worst trial and an untrained model."""
    values = [UNLEARNED[config.metric]]
    for trial in study.get_trials(deepcopy=False):
        values.extend((*(trial.values or ()), *trial.intermediate_values.values()))
    values = [value for value in values if is_finite(value)]
    return min(values) if config.mode == "max" else max(values)


# --- earlier sweeps ------------------------------------------------------------------------------


def distributions(space: Space, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of the parameters of a configuration."""
    by_key: dict[str, BaseDistribution] = {}
    for parameter in space.parameters:
        key, low, high = parameter.key, parameter.low, parameter.high
        if key not in params:
            continue
        if parameter.kind == "choice":
            by_key[key] = CategoricalDistribution([encode(choice) for choice in parameter.choices])
        elif parameter.kind == "int":
            by_key[key] = IntDistribution(int(low), int(high))
        else:
            log = parameter.kind == "loguniform"
            by_key[key] = FloatDistribution(low, high, log=log, step=parameter.step)
    return by_key


def add_earlier_sweep(study: optuna.Study, space: Space, sweep: Sweep, config: SweepConfig) -> int:
    """Add an earlier sweep's trials to a study, except those outside the space.

    Finished trials are added, and those to avoid.

    Returns:
        Number of trials added, without those that the study had before.
    """
    trials = study.get_trials(deepcopy=False)
    # A trial that a killed process added and did not end is added again.
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    known = {trial.user_attrs.get(_ORIGIN) for trial in trials if trial.state in ended}
    added = 0
    for past in sweep.trials:
        origin = f"{sweep.run_dir}#{past.number}"
        outcome = recorded_outcome(past, config)
        if outcome is None or not (outcome.values or outcome.cause) or origin in known:
            continue
        try:
            check_configuration(space, past.params, "")
        except ConfigError:
            continue
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params={key: encode(value) for key, value in past.params.items()},
                distributions=distributions(space, past.params),
                user_attrs={_ORIGIN: origin},
            )
        )
        newest = study.get_trials(deepcopy=False)[-1]
        tell(study, reopen_trial(study, newest), outcome, config)
        added += 1
    return added
