"""The search for configurations: an Optuna study behind Ray Tune's searcher interface.

Ray's own `OptunaSearch` is not used. It gives a study a trial's last report even where the
scheduler stopped the trial, leaves a trial with a NaN running forever, and cannot resume a trial of
a driver that was killed. Here a stopped trial is pruned, with its value after each epoch, which TPE
ranks as such (Bergstra et al. 2011; Optuna's `TPESampler`).

A configuration whose settings a trial has had is not trained again: the study gets that trial's
outcome, as soon as it has ended, and is asked again. Optuna's maintainers recommend this, as its
samplers repeat themselves (github.com/optuna/optuna/issues/2021).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from finsent.adapters.optuna import reopen_trial
from tune.algorithms import SEARCH_ALGORITHMS
from tune.config import SweepConfig
from tune.records import Params, Trial, TrialConfig
from tune.space import Space, encode
from tune.study import tell
from tune.trial_outcome import FAILED, Outcome, recorded_outcome, reported_outcome
from tune.trial_report import TrialReport, is_finite

MAX_LISTED = 2000  # configurations of a space that are listed to find the untried ones
_MAX_REPEATS = 20  # the study's repeats in a row before a configuration is drawn at random
_MAX_DRAWS = 1000  # repeats in a row of random draws before a larger space counts as exhausted
_NUMBER, _REPEATS = "number", "repeats"  # attributes of the study's trials


class StudySearch(Searcher):
    """Ray Tune's view of the study. Its suggestions are of type `TrialConfig`."""

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        config: SweepConfig,
        trials: Sequence[Trial],
        first: Sequence[Mapping[str, Any]],
        on_repeat: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            trials: the sweep's existing trials; those without an end are resumed.
            first: configurations to try before any other.
            on_repeat: called with a trial's number when its settings were suggested again.
        """
        super().__init__(metric=config.metric, mode=config.mode)
        self._study, self._space, self._config = study, space, config
        self._on_repeat = on_repeat
        self.exhausted = False  # no configuration is left
        self._closed = False
        self._resumable = [t for t in trials if t.status in ("running", "interrupted")]
        self._next_number = max((t.number for t in trials), default=-1) + 1
        self._numbers: dict[str, int] = {}  # of trials, by identity of the configuration
        self._outcomes: dict[int, Outcome] = {}  # of ended trials, by number
        for trial in trials:
            self._numbers.setdefault(space.identity(trial.params), trial.number)
            if outcome := recorded_outcome(trial, config):
                self._outcomes[trial.number] = outcome
        self._first = [dict(params) for params in first]
        is_exhaustive = SEARCH_ALGORITHMS[config.search].is_exhaustive
        self._grid = space.grid() if is_exhaustive else None
        self._configurations: dict[str, Params] | None = None  # once `_is_listed`
        self._is_listed = False
        self._live: dict[str, tuple[int, optuna.Trial]] = {}  # by Ray Tune's ID
        self._repeats: dict[int, list[optuna.Trial]] = {}  # waiting for that trial's end
        self._study_numbers: dict[int, int] = {}  # the study's number by the sweep's number
        self._settle_open_trials()

    def _settle_open_trials(self) -> None:
        """End what an earlier driver has left open in the study."""
        resumable = {trial.number for trial in self._resumable}
        for frozen in self._study.get_trials(deepcopy=False):
            number, repeated = frozen.user_attrs.get(_NUMBER), frozen.user_attrs.get(_REPEATS)
            if number is not None:
                self._study_numbers[number] = frozen.number
            if frozen.state == TrialState.WAITING:
                # `ask` would return this trial for another configuration.
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            if frozen.state != TrialState.RUNNING or number in resumable:
                continue
            trial = reopen_trial(self._study, frozen)
            if repeated in resumable:
                self._repeats.setdefault(repeated, []).append(trial)
            else:  # a trial that was not recorded has not started
                ended = repeated if number is None else number
                outcome = FAILED if ended is None else self._outcomes.get(ended, FAILED)
                tell(self._study, trial, outcome, self._config)

    def close(self) -> None:
        """Tell the study nothing from now on: trials that end are interrupted."""
        self._closed = True

    # --- suggestions ------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> Any:
        """Return the next configuration, or FINISHED; see `Searcher.suggest`."""
        suggestion = self._suggest(trial_id)
        return Searcher.FINISHED if suggestion is None else suggestion

    def _suggest(self, trial_id: str) -> TrialConfig | None:
        if self._resumable:
            return self._resume(trial_id, self._resumable.pop(0))
        if self._next_number >= self._config.trials:
            return None
        trial, source = self._enqueue(self._next_known()), "known"
        if trial is None:
            source = "search"
            trial = self._enqueue(self._next_of_grid()) if self._grid else self._ask()
        if trial is None:
            self.exhausted = True
            return None
        number, self._next_number = self._next_number, self._next_number + 1
        trial.set_user_attr(_NUMBER, number)
        params = self._space.sample(trial)
        self._numbers[self._space.identity(params)] = number
        self._live[trial_id] = number, trial
        return {"number": number, "params": params, "source": source}

    def _number_of(self, params: Mapping[str, Any]) -> int | None:
        """Return the number of the trial with these settings; None for new settings."""
        return self._numbers.get(self._space.identity(params))

    def _next_known(self) -> Params | None:
        while self._first:
            params = self._first.pop(0)
            if self._number_of(params) is None:
                return params
        return None

    def _next_of_grid(self) -> Params | None:
        assert self._grid is not None
        return next((params for params in self._grid if self._number_of(params) is None), None)

    def _enqueue(self, params: Mapping[str, Any] | None) -> optuna.Trial | None:
        """Return a given configuration as a trial of the study."""
        if params is None:
            return None
        self._study.enqueue_trial({key: encode(value) for key, value in params.items()})
        return self._study.ask()

    def _ask(self) -> optuna.Trial | None:
        """Return the study's next trial with a new configuration; None where none is left."""
        for _ in range(_MAX_REPEATS):
            trial = self._study.ask()
            number = self._number_of(self._space.sample(trial))
            if number is None:
                return trial
            trial.set_user_attr(_REPEATS, number)
            self._on_repeat(number)
            if number in self._outcomes:
                tell(self._study, trial, self._outcomes[number], self._config)
            else:
                self._repeats.setdefault(number, []).append(trial)
            if self._untried() == []:
                return None
        return self._enqueue(self._draw())

    def _untried(self) -> list[Params] | None:
        """Return the untried configurations; None where the space has too many to list."""
        if not self._is_listed:
            self._configurations = self._space.configurations(MAX_LISTED)
            self._is_listed = True
        if self._configurations is None:
            return None
        return [params for key, params in self._configurations.items() if key not in self._numbers]

    def _draw(self) -> Params | None:
        """Return a new configuration at random."""
        seed, untried = self._config.seed + self._next_number, self._untried()
        if untried is not None:
            return random.Random(seed).choice(untried) if untried else None
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        draws = (self._space.sample(study.ask()) for _ in range(_MAX_DRAWS))
        return next((params for params in draws if self._number_of(params) is None), None)

    def _resume(self, trial_id: str, past: Trial) -> TrialConfig:
        study_number = self._study_numbers.get(past.number)
        trials = self._study.get_trials(deepcopy=False)
        frozen = None if study_number is None else trials[study_number]
        if frozen is not None and frozen.state == TrialState.RUNNING:
            trial = reopen_trial(self._study, frozen)
        else:  # the study was lost, or ended the trial when the driver could not record the end
            self._study.enqueue_trial({key: encode(value) for key, value in past.params.items()})
            trial = self._study.ask()
            trial.set_user_attr(_NUMBER, past.number)
            self._space.sample(trial)
        self._live[trial_id] = past.number, trial
        return {"number": past.number, "params": past.params, "source": "resumed"}

    # --- results ----------------------------------------------------------------------------------

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Report an epoch's value, so that the study learns from a trial that is stopped later."""
        report, value = TrialReport.parse(result), result.get(self._config.metric)
        if report.epoch is None or report.is_last or not is_finite(value):
            return
        if self._config.objectives:
            return
        _, trial = self._live[trial_id]
        if report.epoch not in self._reported_values(trial):
            trial.report(float(value), report.epoch)

    def _reported_values(self, trial: optuna.Trial) -> dict[int, float]:
        return self._study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study a trial's outcome, also for the repeats of its configuration."""
        if self._closed:
            return
        if error:
            outcome = FAILED
        else:
            self.on_trial_result(trial_id, result or {})
            epochs = self._reported_values(self._live[trial_id][1])
            outcome = reported_outcome(TrialReport.parse(result), epochs, self._config)
        number, trial = self._live.pop(trial_id)
        self._outcomes[number] = outcome
        for waiting in (trial, *self._repeats.pop(number, [])):
            tell(self._study, waiting, outcome, self._config)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study and the sweep's records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see `save`."""
