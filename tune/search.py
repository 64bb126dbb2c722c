"""Which configuration comes next: an Optuna study behind Ray Tune's searcher interface.

Ray's own `OptunaSearch` is not used: it tells a study what a trial reported last even where the
scheduler stopped it, leaves a trial with a NaN running for ever, and cannot take up a trial of a
driver that was killed. Here a stopped trial is told as pruned, with its value after each epoch,
which TPE ranks as such (Bergstra et al. 2011; Optuna's `TPESampler`).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

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
from ray.tune.search import Searcher
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from finsent.errors import ConfigError, InputError
from finsent.tuning.config import SweepConfig
from tune.records import Sweep, Trial
from tune.space import Space, encoded, inside

_LOCK_SECONDS = 5  # that a locked SQLite file is waited for
STUDY = "study.db"
FINAL = "final"  # key of a finished trial's values in its last report
FAILURE = "failure"
FULL = "full"  # of a trial that could not write: the plain form of its `DiskError`
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
        problem = " ".join(str(error).split())[:200]
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


def shown(url: str) -> str:
    """A storage's URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def sampler_of(config: SweepConfig, trials_before: int) -> BaseSampler:
    """Optuna's sampler of a search, seeded."""
    seed = config.seed + trials_before
    # `group`, without which conditional parameters are drawn each for itself, is experimental.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if config.search == "tpe":
        # Optuna draws the first ten at random, which of twelve are nearly all.
        random_first = min(10, max(4, config.trials // 4))
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True,
            n_startup_trials=random_first,
        )  # fmt: skip
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


def check_point(space: Space, params: Mapping[str, Any], field: str) -> None:
    """Check that a configuration lies in a space and is whole.

    Raises:
        ConfigError: it does not, or a value is missing.
    """
    said = f"{field}: {json.dumps(dict(params), default=str)}"
    wanted = {one.key: one for one in space.parameters if one.holds(params)}
    if params.keys() != wanted.keys():
        odd = sorted(params.keys() ^ wanted.keys())
        raise ConfigError(
            f"{said}: {odd[0]} is {'missing' if odd[0] in wanted else 'not in sweep.space'}; give "
            "each key of the space a value, and no other"
        )
    for key, one in wanted.items():
        if not inside(one, params[key]):
            raise ConfigError(f"{said}: {key}={params[key]!r} lies outside sweep.space.{key}")


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


def add_past(study: optuna.Study, space: Space, sweep: Sweep, modes: Mapping[str, str]) -> int:
    """Tell a study what an earlier sweep found; trials that lie outside the space are left out.

    Returns:
        How many trials it now knows more of. None where it knows them already.
    """
    known = {trial.user_attrs.get("from") for trial in study.get_trials(deepcopy=False)}
    added = 0
    for trial in sweep.trials:
        origin = f"{sweep.run_dir}#{trial.number}"
        values = [trial.values.get(name) for name in modes]
        if trial.status != "finished" or None in values or origin in known:
            continue
        try:
            check_point(space, trial.params, "")
        except ConfigError:
            continue
        study.add_trial(
            optuna.trial.create_trial(
                params={key: encoded(value) for key, value in trial.params.items()},
                distributions=distributions(space, trial.params),
                values=[float(v) for v in values if v is not None],
                user_attrs={"from": origin},
            )
        )
        added += 1
    return added


@dataclass(frozen=True)
class Suggestion:
    """A configuration on its way."""

    number: int  # of the trial in the sweep
    params: dict[str, Any]
    source: str  # known, search or resumed
    study_trial: int


class StudySearch(Searcher):
    """Ray Tune's view of the study.

    A trial's config is `{"number": int, "params": {...}, "source": str}`.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        config: SweepConfig,
        trials: Sequence[Trial],
        first: Sequence[Mapping[str, Any]],
    ) -> None:
        """
        Args:
            trials: what the sweep has already; those without an end are taken up.
            first: configurations to try before any other.
        """
        super().__init__(metric=config.metric, mode=config.mode)
        self._study, self._space, self._config = study, space, config
        self._open = [t for t in trials if t.status in ("running", "interrupted")]
        self._next = max((t.number for t in trials), default=-1) + 1
        done = {_key(t.params) for t in trials}
        self._first = [dict(params) for params in first if _key(params) not in done]
        self._grid = self._left_of_grid(done) if config.search == "grid" else None
        self._study_trials: dict[int, int] = {}  # places in the study by number
        going_on = {t.number for t in self._open}
        for one in study.get_trials(deepcopy=False):
            number = one.user_attrs.get("number")
            if number is None:
                continue
            self._study_trials[number] = one.number
            if one.state == TrialState.RUNNING and number not in going_on:
                study.tell(one.number, state=TrialState.FAIL)  # the driver died before it started
        self._live: dict[str, optuna.Trial] = {}  # by Tune's id
        self._closing = False

    def close(self) -> None:
        """From now on trials are interrupted, not ended: the study is to hear nothing of it."""
        self._closing = True

    def _left_of_grid(self, done: set[str]) -> Iterator[dict[str, Any]]:
        first = {_key(params) for params in self._first}
        return (p for p in self._space.grid() if _key(p) not in done and _key(p) not in first)

    def suggest(self, trial_id: str) -> Any:
        """See `Searcher.suggest`."""
        found = self._suggest(trial_id)
        if found is None:
            return Searcher.FINISHED
        return {"number": found.number, "params": found.params, "source": found.source}

    def _suggest(self, trial_id: str) -> Suggestion | None:
        if self._open:
            return self._resume(trial_id, self._open.pop(0))
        if self._next >= self._config.trials:
            return None
        source = "search"
        if self._first:
            source, wanted = "known", self._first.pop(0)
            self._study.enqueue_trial({key: encoded(value) for key, value in wanted.items()})
        elif self._grid is not None:
            point = next(self._grid, None)
            if point is None:
                return None
            self._study.enqueue_trial({key: encoded(value) for key, value in point.items()})
        trial = self._study.ask()
        number, self._next = self._next, self._next + 1
        trial.set_user_attr("number", number)
        params = self._space.sample(trial)
        self._live[trial_id] = trial
        return Suggestion(number, params, source, trial.number)

    def _resume(self, trial_id: str, past: Trial) -> Suggestion:
        place = self._study_trials.get(past.number)
        frozen = None if place is None else self._study.get_trials(deepcopy=False)[place]
        if frozen is not None and frozen.state == TrialState.RUNNING:
            trial = optuna.Trial(self._study, frozen._trial_id)
        else:  # the study was lost, or ended the trial when the driver could not record it
            self._study.enqueue_trial({key: encoded(v) for key, v in past.params.items()})
            trial = self._study.ask()
            trial.set_user_attr("number", past.number)
            self._space.sample(trial)
        self._live[trial_id] = trial
        return Suggestion(past.number, past.params, "resumed", trial.number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's value, so that a trial that is stopped later counts for something."""
        epoch, value = result.get("epoch"), result.get(self._config.metric)
        ended = FAILURE in result or f"{FINAL}/{self._config.metric}" in result
        if epoch is None or not _finite(value) or ended or self._config.objectives:
            return
        trial = self._live[trial_id]
        if (
            int(epoch)
            not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        ):
            trial.report(float(value), int(epoch))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended. NaN and failures reach it as failed trials."""
        if self._closing:
            return
        result = result or {}
        values = [result.get(f"{FINAL}/{name}") for name in self._config.modes]
        if error or result.get(FAILURE) or (self._config.objectives and None in values):
            self._end(trial_id, TrialState.FAIL)
        elif all(map(_finite, values)):
            self._end(trial_id, TrialState.COMPLETE, values)
        else:
            self.on_trial_result(trial_id, result)
            self._end(trial_id, TrialState.PRUNED)

    def _end(self, trial_id: str, state: TrialState, values: Any = None) -> None:
        self._study.tell(self._live.pop(trial_id), values, state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the sweep's records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class Population:
    """All configurations of a searcher at once: Ray Tune's PBT takes no searcher."""

    def __init__(self, searcher: StudySearch) -> None:
        self._searcher, self._changed = searcher, set[int]()
        self.configs: list[dict[str, Any]] = []
        while (found := searcher.suggest(str(len(self.configs)))) != Searcher.FINISHED:
            self.configs.append(found)
        self._ids = {config["number"]: str(i) for i, config in enumerate(self.configs)}

    def event(self, event: str, number: int, fields: Mapping[str, Any]) -> None:
        """Tell the study what a trial came to that ended with the settings it began with."""
        if event == "start" and fields["source"] == "pbt":
            self._changed.add(number)
        elif event == "end" and fields["status"] != "interrupted":
            own = fields["status"] == "finished" and number not in self._changed
            values = {f"{FINAL}/{name}": value for name, value in fields["values"].items()}
            result = values if own else {FAILURE: "not with its own settings"}
            self._searcher.on_trial_complete(self._ids[number], result)


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, default=str)
