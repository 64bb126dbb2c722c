"""Private and fragile APIs of Optuna.

tests/unit/test_adapter_optuna.py fails where an upgrade of Optuna changes one of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import FrozenTrial, TrialState


def reopen_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a running trial of a study, maybe of an earlier process, as one that can report.

    `Study.tell` accepts a trial's number, but reports and constraints need the object that
    `Study.ask` has returned. Its constructor needs the storage's ID, which is private.
    """
    return optuna.Trial(study, trial._trial_id)


def prune_as_infeasible(study: optuna.Study, trial: optuna.Trial, constraint: str) -> None:
    """End a trial so that TPE ranks its configuration behind all others.

    TPE ignores failed trials. Of pruned trials, those with a violated constraint come last; the
    order is TPE's own, and documented for `constraints_func` only.
    """
    trial.set_constraint(constraint, 1.0)
    study.tell(trial.number, state=TrialState.PRUNED)


def allow_experimental() -> None:
    """Ignore Optuna's warnings about experimental arguments, for this process.

    Without the experimental `group` TPE draws each conditional parameter on its own. `GPSampler`
    and `PedAnovaImportanceEvaluator` are experimental, too.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@contextmanager
def silenced() -> Iterator[None]:
    """Silence Optuna, which logs every study that is created, and its warnings."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
